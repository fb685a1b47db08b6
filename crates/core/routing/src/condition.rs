//! The conditions of a rule, compiled. They are only asked about requests whose host and path
//! fit already.

use std::collections::BTreeMap;
use std::sync::Arc;

use switchback_domain::network::Network;
use switchback_domain::route::{Conditions, TextMatch};

use crate::RequestView;
use crate::pattern::{Pattern, PatternError};

/// All of them have to hold; `None` is no condition, the common case.
pub(crate) type All = Option<Arc<[Condition]>>;

/// Whether all hold of the request.
pub(crate) fn hold(all: Option<&[Condition]>, request: &RequestView<'_>) -> bool {
    all.is_none_or(|all| all.iter().all(|condition| condition.holds(request)))
}

/// One thing that must hold.
#[derive(Debug)]
pub(crate) enum Condition {
    Method(Vec<String>),
    Source(Vec<Network>),
    Header(String, Text),
    Cookie(String, Text),
    Parameter(String, Text),
}

/// What a text must be.
#[derive(Debug)]
pub(crate) enum Text {
    Exact(String),
    Prefix(String),
    Pattern(Pattern),
    Present,
    Absent,
}

/// Compiles conditions, the cheap ones first.
pub(crate) fn compile(of: &Conditions) -> Result<All, PatternError> {
    if of.is_empty() {
        return Ok(None);
    }
    let mut all = Vec::with_capacity(of.count());
    all.extend((!of.methods.is_empty()).then(|| Condition::Method(of.methods.clone())));
    all.extend((!of.source.is_empty()).then(|| Condition::Source(of.source.clone())));
    extend(&mut all, &of.headers, Condition::Header)?;
    extend(&mut all, &of.query, Condition::Parameter)?;
    extend(&mut all, &of.cookies, Condition::Cookie)?;
    Ok(Some(all.into()))
}

fn extend(
    all: &mut Vec<Condition>,
    texts: &BTreeMap<String, TextMatch>,
    kind: fn(String, Text) -> Condition,
) -> Result<(), PatternError> {
    for (name, text) in texts {
        let text = match text {
            TextMatch::Exact(text) => Text::Exact(text.clone()),
            TextMatch::Prefix(text) => Text::Prefix(text.clone()),
            TextMatch::Regex(text) => Text::Pattern(Pattern::new(text)?),
            TextMatch::Present(true) => Text::Present,
            TextMatch::Present(false) => Text::Absent,
        };
        all.push(kind(name.clone(), text));
    }
    Ok(())
}

impl Condition {
    fn holds(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Method(methods) => methods.iter().any(|method| method == request.method),
            Self::Source(source) => is_within(source, request),
            Self::Header(name, text) => text.fits(|fits| request.header(name, fits)),
            Self::Cookie(name, text) => text.fits(|fits| request.cookie(name, fits)),
            Self::Parameter(name, text) => text.fits(|fits| request.parameter(name, fits)),
        }
    }
}

/// Whether the client is in one of the networks.
pub(crate) fn is_within(source: &[Network], request: &RequestView<'_>) -> bool {
    source.iter().any(|network| network.contains(request.client))
}

impl Text {
    /// Whether one of the values that `any` goes through is right.
    fn fits(&self, any: impl FnOnce(&mut dyn FnMut(&[u8]) -> bool) -> bool) -> bool {
        match self {
            Self::Exact(text) => any(&mut |value| value == text.as_bytes()),
            Self::Prefix(text) => any(&mut |value| value.starts_with(text.as_bytes())),
            Self::Pattern(pattern) => any(&mut |value| pattern.is_match(value)),
            Self::Present => any(&mut |_| true),
            Self::Absent => !any(&mut |_| true),
        }
    }
}
