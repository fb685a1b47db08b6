//! Checks of `{{name}}` in texts. What is filled in when is the domain's `template`.

use switchback_domain::metric::METRIC_VARIABLES;
use switchback_domain::template::{
    HOOK_VARIABLES, INSTANCE_VARIABLES, RELEASE_VARIABLES, placeholders,
};

use crate::diagnostic::Code;
use crate::reader::Reader;
use crate::suggest;
use crate::value::Node;

/// When a text is used, and with that which names it may hold.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    /// When a release is made.
    Release,
    /// When an instance starts, or beside it.
    Instance,
    /// When a hook runs.
    Hook,
    /// When a metric is asked for.
    Metric,
}

impl Scope {
    fn names(self) -> Vec<&'static str> {
        let later: &[&'static str] = match self {
            Self::Release => &[],
            Self::Instance => &INSTANCE_VARIABLES,
            Self::Hook => &HOOK_VARIABLES,
            Self::Metric => &METRIC_VARIABLES,
        };
        RELEASE_VARIABLES.iter().chain(later).copied().collect()
    }
}

/// Reports every name between double braces that would never be filled in.
pub(crate) fn check(reader: &mut Reader, node: &Node, text: &str, scope: Scope) {
    let known = scope.names();
    for placeholder in placeholders(text) {
        if reader.is_full() {
            break;
        }
        if !known.contains(&placeholder.name) {
            let message = format!("unknown template `{{{{{}}}}}`", placeholder.name);
            let hint = suggest::hint(placeholder.name, &known, "known here");
            reader.report(node, Code::Template, message, hint);
        }
    }
}

/// A text with checked templates.
pub(crate) fn text(reader: &mut Reader, node: &Node, scope: Scope) -> Option<String> {
    let text = reader.text(node)?;
    check(reader, node, &text, scope);
    Some(text)
}
