//! "Did you mean": the nearest known word, when it is near enough to be meant.

/// Most candidates that are looked at: among more names than that, nearly every one is near another.
const CANDIDATES_MAX: usize = 200;
/// Most words that are listed.
const LISTED_MAX: usize = 50;

/// The candidate nearest to `word`; `None` when none is near.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let plain = normalized(word);
    let near = (plain.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .map(|candidate| (distance(&plain, &normalized(candidate)), candidate))
        .filter(|(distance, _)| *distance <= near)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ``did you mean `x`?``, or the list of what is known.
pub(crate) fn hint(word: &str, known: &[&str], what: &str) -> String {
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("{what}: {}", listed(known)),
    }
}

/// The words one after the other; of many, the first and how many more there are.
fn listed(known: &[&str]) -> String {
    match known.split_at_checked(LISTED_MAX) {
        Some((first, rest)) if !rest.is_empty() => {
            format!("{} and {} more", first.join(", "), rest.len())
        }
        Some(_) | None => known.join(", "),
    }
}

/// Camel case, hyphens and capitals are the usual slips; they do not count as edits.
fn normalized(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '_' | '-')).take(40).flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut cost = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["replicas", "max_surge", "path"];
        assert_eq!(nearest("replcias", known), Some("replicas"));
        assert_eq!(nearest("maxSurge", known), Some("max_surge"));
        assert_eq!(nearest("max-surge", known), Some("max_surge"));
        assert_eq!(nearest("pth", known), Some("path"));
        assert_eq!(nearest("image", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn of_many_words_the_first_are_listed() {
        assert_eq!(hint("zzz", &["a", "b"], "known"), "known: a, b");
        let many: Vec<_> = (0..52).map(|number| format!("word{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(hint("zzz", &many, "known").ends_with("word48, word49 and 2 more"));
    }
}
