//! An error in one line, with everything it was caused by.

/// The error and its causes, outermost first, joined by `: `. For errors that do not print their
/// causes themselves, which is the rule here.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Outer(fmt::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("cannot say it")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn every_cause_is_said_once() {
        let inner = fmt::Error;
        assert_eq!(with_causes(&inner), inner.to_string());
        assert_eq!(with_causes(&Outer(inner)), format!("cannot say it: {inner}"));
    }
}
