//! What maintenance, isolate, divert and hold share: to whom, why, and what is said of it.

use switchback_api::{Operation, OperationRequest, Problem, exit};
use switchback_domain::ServiceName;

use crate::context::{Context, by};

/// Has routes do something else, or serve again.
pub(crate) async fn operate(
    services: Vec<ServiceName>,
    operation: Operation,
    reason: Option<String>,
    context: &mut Context<'_>,
) -> Result<u8, Problem> {
    let client = context.client()?;
    let environment = context.environment();
    let request = OperationRequest { services, environment, operation, reason, by: by() };
    let answer = client.operate(&request).await?;
    let output = &mut *context.output;
    for (service, words) in &answer.changed {
        output.line(format!("{service}: {words}"));
    }
    if !answer.in_force {
        output
            .note("written down; the data plane does not do it yet: `switchback status` says why");
    }
    output.document(&answer);
    Ok(exit::OK)
}
