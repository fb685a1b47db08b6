//! `switchback init`.

use std::path::PathBuf;

use serde::Serialize;
use switchback_api::{Problem, exit};

use crate::context::{Context, here};
use crate::paths::CONFIG_NAME;
use crate::{configuration, detect};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write over an existing configuration
    #[arg(long)]
    force: bool,
}

/// What was written, and for what.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    found: Vec<String>,
}

pub(crate) fn run(args: &Args, context: &mut Context<'_>) -> Result<u8, Problem> {
    let here = here()?;
    let file = here.join(context.file.as_deref().unwrap_or_else(|| CONFIG_NAME.as_ref()));
    let found = detect::look_at(file.parent().unwrap_or(&here));
    let text = configuration::starter(&found)?;
    configuration::write_new(&file, &text, args.force)?;
    let output = &mut *context.output;
    for service in &found.services {
        output.progress(format!("found {}: service {}", service.because, service.name));
    }
    if found.services.is_empty() {
        output.progress("found nothing known here: the example in it is yours to change");
    }
    output.line(format!("wrote {}", file.display()));
    output.progress("next: read it, then `switchback lint` and `switchback up`");
    let found = found.services.into_iter().map(|service| service.because).collect();
    output.document(&Written { file, found });
    Ok(exit::OK)
}
