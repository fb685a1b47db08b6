//! One order, from the account to the certificate on the shelf.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use switchback_domain::acme::AcmeSpec;
use switchback_ports::certificates::{NotOrdered, Proof, Stage};
use switchback_resilience::Validity;

use crate::client::{Https, Wish};
use crate::shelf::Shelf;

/// Between two looks whether the authority has come by: from a quarter of a second on, for a
/// minute. Let's Encrypt takes a few seconds.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_mins(1));
/// Authorities may refuse any number that they gave out to be used once; the library asks for
/// another one twice. An order that was given up for it has cost nobody anything.
const ATTEMPTS_MAX: u32 = 3;
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
/// What authorities say when they do not know the account any more.
const ACCOUNT_GONE: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Orders a certificate and puts it on the shelf.
pub(crate) async fn order(
    shelf: &Shelf,
    spec: &AcmeSpec,
    stage: &dyn Stage,
) -> Result<Validity, NotOrdered> {
    let wish = Wish::default();
    let (mut known, mut left) = (true, ATTEMPTS_MAX);
    loop {
        left -= 1;
        match Box::pin(attempt(shelf, spec, stage, &wish, known)).await {
            Ok(kept) => return Ok(kept),
            // An authority that has lost its memory is introduced to us once more.
            Err(Failed::AccountGone) if known => known = false,
            Err(Failed::BadNonce) if left > 0 => {}
            Err(failed) => {
                let not_before = wish.get();
                return Err(NotOrdered { reason: failed.words(), not_before });
            }
        }
    }
}

enum Failed {
    /// The authority does not know our account.
    AccountGone,
    /// The authority refuses its own numbers, again and again.
    BadNonce,
    /// Anything else, in words.
    Why(String),
}

impl Failed {
    fn words(self) -> String {
        match self {
            Self::AccountGone => "the authority does not know the account it was given".to_owned(),
            Self::BadNonce => "the authority refuses its own nonces".to_owned(),
            Self::Why(why) => why,
        }
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        if matches!(error, Error::Timeout(_)) {
            return Self::Why("the authority does not come to an end".to_owned());
        }
        let Error::Api(problem) = error else {
            return Self::Why(switchback_domain::with_causes(&error));
        };
        match problem.r#type.as_deref() {
            Some(ACCOUNT_GONE) => Self::AccountGone,
            Some(BAD_NONCE) => Self::BadNonce,
            Some(_) | None => Self::Why(said(&problem)),
        }
    }
}

/// An authority's words, with the kind of the problem, which documentation goes by.
fn said(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("the authority refuses");
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let whole = if kind.is_empty() { detail.to_owned() } else { format!("{detail} ({kind})") };
    let parts = problem.subproblems.iter().map(ToString::to_string);
    std::iter::once(whole).chain(parts).collect::<Vec<_>>().join("; ")
}

async fn attempt(
    shelf: &Shelf,
    spec: &AcmeSpec,
    stage: &dyn Stage,
    wish: &Wish,
    known: bool,
) -> Result<Validity, Failed> {
    let account = account(shelf, spec, wish, known).await?;
    let names: Vec<_> = spec.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let proofs = proofs(&mut order).await?;
    if !proofs.is_empty() {
        stage.show(&proofs).await?;
        ask_to_look(&mut order).await?;
    }
    if order.state().status == OrderStatus::Pending {
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) => return Err(why_not(&mut order, None).await),
            Err(error @ Error::Api(_)) => match Failed::from(error) {
                Failed::Why(whole) => return Err(why_not(&mut order, Some(whole)).await),
                begin_again @ (Failed::AccountGone | Failed::BadNonce) => return Err(begin_again),
            },
            Err(other) => return Err(other.into()),
        }
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(shelf.keep(spec, &chain, &key)?)
}

/// The account of before, or a new one.
async fn account(
    shelf: &Shelf,
    spec: &AcmeSpec,
    wish: &Wish,
    known: bool,
) -> Result<Account, Failed> {
    let https = Https::new(spec.authority.as_deref(), wish.clone())?;
    let builder = Account::builder_with_http(Box::new(https));
    if let Some(credentials) = shelf.account(spec).filter(|_| known) {
        return Ok(builder.from_credentials(credentials).await?);
    }
    let contact = spec.email.iter().map(|email| format!("mailto:{email}")).collect::<Vec<_>>();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = builder.create(&new, spec.directory.clone(), None).await?;
    shelf.keep_account(spec, &credentials)?;
    Ok(account)
}

/// What has to be shown for the names that are not proved yet.
async fn proofs(order: &mut Order) -> Result<Vec<Proof>, Failed> {
    let mut proofs = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        if authorization.status != AuthorizationStatus::Pending {
            return Err(format!("{name}: its order is {:?}", authorization.status).into());
        }
        let challenge = authorization
            .challenge(ChallengeType::Http01)
            .ok_or_else(|| format!("{name}: the authority does not offer http-01"))?;
        let answer = challenge.key_authorization().as_str().to_owned();
        proofs.push(Proof { token: challenge.token.clone(), answer });
    }
    Ok(proofs)
}

/// Has the authority look at what is shown.
async fn ask_to_look(order: &mut Order) -> Result<(), Failed> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = authorization.identifier().to_string();
        let Some(mut challenge) = authorization.challenge(ChallengeType::Http01) else { continue };
        match (challenge.set_ready().await).map_err(Failed::from) {
            Ok(()) => {}
            // Some have looked before they answer.
            Err(Failed::Why(why)) => return Err(Failed::Why(format!("{name}: {why}"))),
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// What the authority did not like, name by name; else what it said of the whole.
async fn why_not(order: &mut Order, whole: Option<String>) -> Failed {
    let mut words = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // Without an answer the names that did answer are told of.
        let Ok(state) = authorization.refresh().await else { continue };
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        let errors: Vec<_> = errors.map(said).collect();
        if !errors.is_empty() {
            let name = state.identifier().to_string();
            words.push(format!("{name}: {}", errors.join("; ")));
        }
    }
    if words.is_empty() {
        let silent = || "the authority refuses, and does not say why".to_owned();
        words.push(whole.unwrap_or_else(silent));
    }
    Failed::Why(words.join("; "))
}
