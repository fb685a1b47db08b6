//! Numbers with the unit of their rule.

/// A rule's number as people read it: shares in percent, times in milliseconds or seconds,
/// memory in MiB, everything else as it is.
pub(crate) fn of_rule(rule: &str, number: f64) -> String {
    if !number.is_finite() {
        return "no number".to_owned();
    }
    if rule.contains("ratio") || rule == "response_time" {
        return format!("{}x", short(number));
    }
    if rule.contains("latency") {
        return seconds(number);
    }
    if rule.contains("rate") {
        return format!("{}%", short(number * 100.0));
    }
    if rule.contains("memory") {
        return format!("{} MiB", short(number / f64::from(1 << 20)));
    }
    if rule.contains("cpu") {
        return format!("{} cores", short(number));
    }
    short(number)
}

/// The baseline's number beside a rule's: rules that compare show its own latency.
pub(crate) fn of_baseline(rule: &str, number: f64) -> String {
    if rule.contains("latency_ratio") || rule == "response_time" {
        return seconds(number);
    }
    of_rule(rule, number)
}

/// Seconds, in milliseconds below one.
fn seconds(number: f64) -> String {
    if number < 1.0 {
        format!("{} ms", short(number * 1000.0))
    } else {
        format!("{} s", short(number))
    }
}

/// At most two decimals, no trailing zeros.
fn short(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A count with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_the_unit_of_their_rule() {
        assert_eq!(of_rule("error_rate", 0.0523), "5.23%");
        assert_eq!(of_rule("success_rate", 0.995), "99.5%");
        assert_eq!(of_rule("latency_p95", 0.25), "250 ms");
        assert_eq!(of_rule("latency_p99", 1.5), "1.5 s");
        assert_eq!(of_rule("response_time", 2.0), "2x");
        assert_eq!(of_rule("latency_ratio", 2.01), "2.01x");
        assert_eq!(of_rule("memory_usage", 536_870_912.0), "512 MiB");
        assert_eq!(of_rule("cpu_usage", 0.85), "0.85 cores");
        assert_eq!(of_rule("queue depth", 100.0), "100");
        assert_eq!(of_rule("error_rate", f64::NAN), "no number");
    }

    #[test]
    fn counts_have_a_plural() {
        assert_eq!(
            (count(1, "request"), count(0, "request")),
            ("1 request".into(), "0 requests".into())
        );
    }
}
