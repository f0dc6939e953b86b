//! `holdpoint schema`: JSON Schemas for editors, the description of the admin API, and the Cedar schema that policies are checked against.

use std::io::Write;
use std::path::PathBuf;

use super::Exit;
use crate::workbench::suite;
use crate::{admin, app, config, policy, snapshot};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which one.
    what: What,
    /// The configuration, for `policy`.
    #[arg(long, default_value = "holdpoint.yaml")]
    config: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// JSON Schema of the configuration file.
    Config,
    /// JSON Schema of test files.
    Test,
    /// OpenAPI 3.1 of the admin API, as it answers itself at `/v1/openapi.json`.
    Openapi,
    /// The Cedar schema generated from the configuration and the tools' schemas.
    Policy,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    match args.what {
        What::Config => writeln!(out, "{}", serde_json::to_string_pretty(&config::json_schema())?)?,
        What::Test => writeln!(out, "{}", serde_json::to_string_pretty(&suite::json_schema())?)?,
        What::Openapi => writeln!(out, "{}", serde_json::to_string_pretty(&admin::openapi())?)?,
        What::Policy => {
            let config = match app::load(&args.config) {
                Ok(config) => config,
                Err(mistakes) => {
                    writeln!(std::io::stderr(), "{mistakes}")?;
                    return Ok(Exit::Rejected);
                }
            };
            write!(out, "{}", policy::schema::generate(&snapshot::model(&config)).text)?;
        }
    }
    Ok(Exit::Ok)
}
