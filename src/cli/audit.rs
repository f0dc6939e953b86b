//! `holdpoint audit`: the journal, read without the proxy.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::Exit;
use crate::audit::ReadError;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    /// Check every record: frames, chain, sequence, payload digests. Names the first bad one. Exit 2 when rejected.
    Verify {
        /// The state folder (`state.path`).
        dir: PathBuf,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(verb: &Audit, out: &mut impl Write) -> anyhow::Result<Exit> {
    let Audit::Verify { dir, json } = verb;
    if !dir.is_dir() {
        anyhow::bail!("`{}` is not a folder; give the one that `state.path` names", dir.display());
    }
    match crate::audit::verify(dir) {
        Ok(report) if *json => {
            writeln!(out, "{}", json!({"version": 1, "ok": true, "report": report}))?;
            Ok(Exit::Ok)
        }
        Ok(report) => {
            writeln!(out, "{report}")?;
            Ok(Exit::Ok)
        }
        Err(ReadError::Bad(bad)) if *json => {
            writeln!(out, "{}", json!({"version": 1, "ok": false, "first_bad": bad}))?;
            Ok(Exit::Rejected)
        }
        Err(ReadError::Bad(bad)) => {
            writeln!(out, "{bad}")?;
            Ok(Exit::Rejected)
        }
        Err(e) => Err(e.into()),
    }
}
