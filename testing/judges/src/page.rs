//! A page with a generated part between two marks.

/// The part that the grid makes.
pub const GRID: &str = "bench judge";
/// The part that the live check makes.
pub const LIVE: &str = "bench judge --live";

/// `page` with `text` in the place of the part of this name, or at its end.
pub fn put_into(page: &str, name: &str, text: &str) -> String {
    let marks = ["begin", "end"].map(|mark| format!("<!-- {mark}: {name} -->"));
    let block = format!("{}\n{text}{}", marks[0], marks[1]);
    let between = page.find(&marks[0]).zip(page.find(&marks[1]));
    match between.filter(|(begin, end)| begin < end) {
        Some((begin, end)) => format!("{}{block}{}", &page[..begin], &page[end + marks[1].len()..]),
        None => format!("{}\n\n{block}\n", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_part_is_replaced_and_nothing_else() {
        let page = put_into("# Page\n\nWords.\n", GRID, "one\n");
        let again = put_into(&page, GRID, "two\n");
        assert_eq!(again, page.replacen("one", "two", 1));
        assert!(again.starts_with("# Page\n\nWords.\n\n<!-- begin"));
        let both = put_into(&again, LIVE, "three\n");
        assert!(both.starts_with(again.trim_end()) && both.contains("three"), "{both}");
    }
}
