//! `holdpoint audit`: the journal, read without the proxy.

use std::io::Write;
use std::path::PathBuf;

use super::Exit;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    /// Check every record: frames, chain, sequence, payload digests. Names the first bad one. Exit 2 when rejected.
    Verify {
        /// The state folder (`state.path`).
        dir: PathBuf,
    },
}

pub(super) fn run(verb: &Audit, out: &mut impl Write) -> anyhow::Result<Exit> {
    let Audit::Verify { dir } = verb;
    if !dir.is_dir() {
        anyhow::bail!("`{}` is not a folder; give the one that `state.path` names", dir.display());
    }
    match crate::audit::verify(dir) {
        Ok(report) => {
            writeln!(out, "{report}")?;
            Ok(Exit::Ok)
        }
        Err(bad) => {
            writeln!(out, "{bad}")?;
            Ok(Exit::Rejected)
        }
    }
}
