//! Any JSON document with a number in it; queries are JSON pointers (RFC 6901).

use serde_json::Value;
use switchback_domain::Timestamp;
use switchback_domain::metric::{Answer, Endpoint};

use crate::http::{self, Page};
use crate::shown;

/// Asks once; the number is about the moment asked for.
pub(crate) async fn ask(endpoint: &Endpoint, pointer: &str, at: Timestamp) -> Answer {
    let page = match http::get(endpoint, "").await {
        Ok(page) => page,
        Err(why) => return Answer::Failed(why),
    };
    understand(&page, pointer, at)
}

pub(crate) fn understand(page: &Page, pointer: &str, at: Timestamp) -> Answer {
    if !page.status.is_success() {
        let said = shown(&String::from_utf8_lossy(&page.body));
        let colon = if said.is_empty() { "" } else { ": " };
        return Answer::Failed(format!("{}{colon}{said}", page.status));
    }
    match serde_json::from_slice::<Value>(&page.body) {
        Ok(document) => find(&document, pointer, at),
        Err(error) => Answer::Failed(format!("the answer is no JSON: {error}")),
    }
}

fn find(document: &Value, pointer: &str, at: Timestamp) -> Answer {
    match document.pointer(pointer) {
        None | Some(Value::Null) => Answer::NoData,
        Some(Value::Number(number)) => match number.as_f64() {
            Some(value) => Answer::Number { value, at },
            None => Answer::NotANumber(shown(&number.to_string())),
        },
        Some(Value::Array(items)) => match items.len() {
            0 => Answer::NoData,
            1 => Answer::NotANumber("a list of one; end the pointer with `/0`".to_owned()),
            several => Answer::SeveralSeries(several),
        },
        Some(Value::String(text)) => Answer::NotANumber(format!("the text \"{}\"", shown(text))),
        Some(Value::Bool(truth)) => Answer::NotANumber(truth.to_string()),
        Some(Value::Object(_)) => Answer::NotANumber("a map".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pointer_leads_to_a_number_or_to_a_name() {
        let at = Timestamp::from_millis(1000);
        let document = json!({
            "canary": {"errors": 3, "note": "high", "ok": true, "gone": null},
            "list": [1, 2.5], "one": [1], "none": [], "a/b": {"~": 7},
        });
        let number = |value| Answer::Number { value, at };
        for (pointer, expected) in [
            ("/canary/errors", number(3.0)),
            ("/list/1", number(2.5)),
            ("/a~1b/~0", number(7.0)),
            ("/canary/gone", Answer::NoData),
            ("/nowhere", Answer::NoData),
            ("/none", Answer::NoData),
            ("/list", Answer::SeveralSeries(2)),
            ("/canary/note", Answer::NotANumber("the text \"high\"".to_owned())),
            ("/canary/ok", Answer::NotANumber("true".to_owned())),
            ("", Answer::NotANumber("a map".to_owned())),
        ] {
            assert_eq!(find(&document, pointer, at), expected, "{pointer}");
        }
        assert!(matches!(find(&document, "/one", at), Answer::NotANumber(_)));
    }
}
