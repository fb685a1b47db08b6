//! The pages of `docs/errors`, carried in the binary: `switchback explain SB0201` works anywhere.

/// Makes the list of pages from their codes.
macro_rules! pages {
    ($($code:ident),* $(,)?) => {
        /// Codes and pages, ascending.
        pub(crate) const ALL: &[(&str, &str)] = &[$((
            stringify!($code),
            include_str!(concat!("../../../../docs/errors/", stringify!($code), ".md")),
        )),*];
    };
}

pages! {
    SB0101, SB0102, SB0103, SB0104, SB0105, SB0106, SB0107, SB0108, SB0109, SB0110, SB0111,
    SB0112, SB0113, SB0114, SB0115, SB0116, SB0117, SB0118, SB0119, SB0150, SB0151, SB0152,
    SB0153, SB0154, SB0201, SB0202, SB0203, SB0204, SB0205, SB0206, SB0207, SB0208, SB0209, SB0210,
    SB0211, SB0212, SB0213, SB0301, SB0302, SB0303, SB0304, SB0305, SB0306, SB0307, SB0308,
    SB0309, SB0310, SB0311, SB0401, SB0402, SB0403, SB0404, SB0405, SB0406, SB0407, SB0408, SB0409, SB0410,
    SB0411, SB0501, SB0502, SB0503, SB0504, SB0505, SB0601, SB0602, SB0603, SB0604, SB0605, SB0701,
    SB0702, SB0703, SB0704, SB0705, SB0901,
}

/// Whether a text has the form of a code: `SB` and digits, in any case.
pub(crate) fn is_code(text: &str) -> bool {
    let Some((letters, digits)) = text.split_at_checked(2) else { return false };
    letters.eq_ignore_ascii_case("sb")
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The code as it is spelled, and its page.
pub(crate) fn find(code: &str) -> Option<(&'static str, &'static str)> {
    ALL.iter().copied().find(|(known, _)| known.eq_ignore_ascii_case(code))
}

/// A page's title, from its first line `# SB0201: title`.
pub(crate) fn title(page: &str) -> &str {
    page.lines().next().and_then(|line| line.split_once(": ")).map_or("", |(_, title)| title)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.."))
    }

    fn pages() -> BTreeSet<String> {
        ALL.iter().map(|(code, _)| (*code).to_owned()).collect()
    }

    /// Every `SBnnnn` in production code below a directory.
    fn used_below(directory: &Path, used: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
                used_below(&path, used);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                used.extend(code.match_indices("\"SB").filter_map(|(at, _)| {
                    let id = code.get(at + 1..at + 7)?;
                    (is_code(id) && code[at + 7..].starts_with('"')).then(|| id.to_owned())
                }));
            }
        }
    }

    #[test]
    fn each_code_in_the_source_has_a_page_and_each_page_a_code() {
        let mut used = BTreeSet::new();
        used_below(&root().join("crates"), &mut used);
        assert_eq!(used, pages());
        let known: BTreeSet<String> = switchback_api::code::ALL
            .iter()
            .map(|code| code.id.to_owned())
            .chain(switchback_config::Code::ALL.iter().map(ToString::to_string))
            .collect();
        assert_eq!(known, pages());
    }

    #[test]
    fn each_file_is_embedded_and_says_what_to_do() {
        let files: BTreeSet<String> = fs::read_dir(root().join("docs/errors"))
            .unwrap()
            .filter_map(|entry| entry.unwrap().path().file_stem()?.to_str().map(str::to_owned))
            .collect();
        assert_eq!(files, pages());
        for (code, page) in ALL {
            assert!(page.starts_with(&format!("# {code}: ")), "{code}");
            assert!(page.contains("\n## What to do\n"), "{code}");
            assert!(!title(page).is_empty(), "{code}");
            for (at, _) in page.match_indices("](SB") {
                assert!(find(&page[at + 2..at + 8]).is_some(), "{code} links to nowhere");
            }
        }
    }

    #[test]
    fn codes_are_told_from_names() {
        assert!(is_code("SB0201") && is_code("sb9"));
        for text in ["SB", "SBx", "sbom", "r12", "ü1", ""] {
            assert!(!is_code(text), "{text}");
        }
        assert_eq!(find("sb0201").unwrap().0, "SB0201");
        assert!(find("SB9999").is_none());
    }
}
