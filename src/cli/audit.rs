//! `holdpoint audit`: the journal, read without the proxy.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::Exit;
use crate::app;
use crate::audit::{self, Checked, ReadError, Verified, Verifier};
use crate::clock::SystemClock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    /// Check every record: checksums, chain, sequence, payload digests, signed checkpoints. Names the first bad one.
    /// Exit 2 when rejected.
    Verify {
        /// The state folder (`state.path`), or a file that `audit export` wrote.
        path: PathBuf,
        /// The public key of the checkpoints (`audit key`), kept elsewhere; else the one found there is believed.
        #[arg(long)]
        key: Option<Verifier>,
        /// A checkpoint that was kept elsewhere; what is there must begin with what it covers. May be repeated.
        #[arg(long)]
        checkpoint: Vec<PathBuf>,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Write records as lines of JSON that `audit verify` checks without the state folder. Payloads stay sealed at home.
    Export {
        /// The state folder.
        dir: PathBuf,
        /// The file to write; standard output without it.
        #[arg(long, short)]
        output: Option<PathBuf>,
        /// The first record.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// The last record.
        #[arg(long, default_value_t = u64::MAX)]
        to: u64,
    },
    /// Prove that a record is in the signed log, or that the log begins with an older checkpoint. Prints the proof.
    Prove {
        /// The state folder.
        dir: PathBuf,
        /// The record.
        #[arg(long, required_unless_present = "since", conflicts_with = "since")]
        record: Option<u64>,
        /// The older checkpoint.
        #[arg(long)]
        since: Option<PathBuf>,
    },
    /// Check a proof of `audit prove`; needs nothing else. Exit 2 when it does not hold.
    CheckProof {
        /// The proof.
        file: PathBuf,
        /// The public key of the checkpoints, kept elsewhere; else the one in the proof is believed.
        #[arg(long)]
        key: Option<Verifier>,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Print the public key of the checkpoints, to be kept elsewhere.
    Key {
        /// The state folder.
        dir: PathBuf,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Say that the history in the state folder is the one to go on with, though another was signed (a restored backup).
    /// It is recorded. Calls with effects are refused until then. The proxy must be stopped.
    Accept {
        /// The configuration.
        #[arg(long, default_value = "holdpoint.yaml")]
        config: PathBuf,
        /// Why; stands in the journal.
        #[arg(long)]
        reason: String,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(verb: &Audit, out: &mut impl Write) -> anyhow::Result<Exit> {
    match verb {
        Audit::Verify { path, key, checkpoint, json } => verify(path, key.clone(), checkpoint, *json, out),
        Audit::Export { dir, output, from, to } => export(dir, output.as_deref(), (*from, *to), out),
        Audit::Prove { dir, record, since } => prove(dir, *record, since.as_deref(), out),
        Audit::CheckProof { file, key, json } => check(file, key.clone(), *json, out),
        Audit::Key { dir, json } => {
            let key =
                audit::key_of(dir)?.ok_or_else(|| anyhow::anyhow!("there is no key: no proxy has started on it"))?;
            tell(*json, json!({"version": 1, "key": key.to_string()}), key.to_string(), out)?;
            Ok(Exit::Ok)
        }
        Audit::Accept { config, reason, json } => accept(config, reason, *json, out),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).map_err(|e| anyhow::anyhow!("cannot read `{}`: {e}", path.display()))
}

fn verify(
    path: &Path,
    key: Option<Verifier>,
    kept: &[PathBuf],
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<Exit> {
    let older = kept.iter().map(|p| read(p)).collect::<anyhow::Result<Vec<_>>>()?;
    let pinned = key.is_some();
    let verified = if path.is_dir() {
        audit::verify_signed(path, key, &older)
    } else {
        let file = File::open(path).map_err(|e| {
            anyhow::anyhow!("`{}` is neither a state folder (`state.path`) nor an export: {e}", path.display())
        })?;
        audit::verify_export(BufReader::new(file), key, &older)
    };
    match verified {
        Ok(verified) if json => {
            writeln!(
                out,
                "{}",
                json!({"version": 1, "ok": true, "report": verified.report,
                "checkpoints": verified.checkpoints, "key": verified.key, "key_pinned": pinned})
            )?;
            Ok(Exit::Ok)
        }
        Ok(verified) => {
            writeln!(out, "{}", verified.report)?;
            tell_signed(&verified, pinned, out)?;
            Ok(Exit::Ok)
        }
        Err(e) => rejected(e, json, out),
    }
}

fn tell_signed(verified: &Verified, pinned: bool, out: &mut impl Write) -> anyhow::Result<()> {
    for signed in &verified.checkpoints {
        writeln!(out, "signed: the first {} records have the root {}", signed.size, signed.root)?;
    }
    if verified.checkpoints.is_empty() {
        writeln!(out, "no signed checkpoint covers what is here")?;
    } else if !pinned {
        writeln!(out, "the key was found beside the records; pin it: --key '{}'", verified.key)?;
    }
    Ok(())
}

/// What is bad is told on standard output and by exit 2; what cannot be read is an error.
fn rejected(error: ReadError, json: bool, out: &mut impl Write) -> anyhow::Result<Exit> {
    match error {
        ReadError::Bad(bad) if json => writeln!(out, "{}", json!({"version": 1, "ok": false, "first_bad": bad}))?,
        ReadError::Bad(bad) => writeln!(out, "{bad}")?,
        other @ ReadError::Io(_) => return Err(other.into()),
    }
    Ok(Exit::Rejected)
}

fn export(dir: &Path, output: Option<&Path>, (from, to): (u64, u64), out: &mut impl Write) -> anyhow::Result<Exit> {
    if !dir.is_dir() {
        anyhow::bail!("`{}` is not a folder; give the one that `state.path` names", dir.display());
    }
    let Some(path) = output else {
        return match audit::export(dir, from, to, out) {
            Ok(_) => Ok(Exit::Ok),
            Err(e) => rejected(e, false, &mut std::io::stderr()),
        };
    };
    let mut file = std::io::BufWriter::new(File::create(path)?);
    match audit::export(dir, from, to, &mut file) {
        Ok(done) => {
            writeln!(out, "{} records from record {} on, in `{}`", done.records, done.first, path.display())?;
            Ok(Exit::Ok)
        }
        Err(e) => rejected(e, false, out),
    }
}

fn prove(dir: &Path, record: Option<u64>, since: Option<&Path>, out: &mut impl Write) -> anyhow::Result<Exit> {
    let proof = match (record, since) {
        (Some(seq), _) => audit::prove_inclusion(dir, seq),
        (None, Some(older)) => audit::prove_consistency(dir, &read(older)?),
        (None, None) => anyhow::bail!("give --record or --since"),
    };
    match proof {
        Ok(proof) => {
            writeln!(out, "{proof}")?;
            Ok(Exit::Ok)
        }
        Err(e) => rejected(e, false, &mut std::io::stderr()),
    }
}

/// One JSON object, or text.
fn tell(json: bool, object: serde_json::Value, text: String, out: &mut impl Write) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", if json { object.to_string() } else { text })?)
}

fn check(file: &Path, key: Option<Verifier>, json: bool, out: &mut impl Write) -> anyhow::Result<Exit> {
    let pinned = key.is_some();
    let (object, text) = match audit::check(&read(file)?, key) {
        Ok(Checked::Included { seq, size }) => (
            json!({"version": 1, "ok": true, "record": seq, "size": size, "key_pinned": pinned}),
            format!("record {seq} is in the signed log of {size} records"),
        ),
        Ok(Checked::Extends { older, size }) => (
            json!({"version": 1, "ok": true, "since": older, "size": size, "key_pinned": pinned}),
            format!("the signed log of {size} records begins with the signed log of {older} records"),
        ),
        Err(e) => return rejected(e, json, out),
    };
    tell(json, object, text, out)?;
    if !pinned && !json {
        writeln!(out, "the key is the proof's own; compare it with the one that you keep (--key)")?;
    }
    Ok(Exit::Ok)
}

fn accept(config: &Path, reason: &str, json: bool, out: &mut impl Write) -> anyhow::Result<Exit> {
    let config = match app::load(config) {
        Ok(config) => config,
        Err(mistakes) => {
            writeln!(std::io::stderr(), "{mistakes}")?;
            return Ok(Exit::Rejected);
        }
    };
    if reason.trim().is_empty() {
        anyhow::bail!("--reason must say why");
    }
    let by = std::env::var("USER").unwrap_or_else(|_| "operator".into());
    let trouble = app::accept_history(&config, Arc::new(SystemClock), reason, &by)?;
    let text = trouble.as_ref().map_or_else(
        || "nothing was wrong with the history; your word is recorded all the same".to_owned(),
        |trouble| format!("accepted: {trouble}"),
    );
    tell(json, json!({"version": 1, "ok": true, "accepted": trouble}), text, out)?;
    Ok(Exit::Ok)
}
