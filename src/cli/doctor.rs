//! `holdpoint doctor`: what would make a set-up unsafe or useless, looked at from outside.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Exit;
use crate::app;
use crate::audit;
use crate::config::{Channel, Config};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration.
    #[arg(long, default_value = "holdpoint.yaml")]
    config: PathBuf,
    /// Do not read the whole journal.
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Good,
    Hint,
    Bad,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Hint => "hint",
            Self::Bad => "bad",
        }
    }
}

type Findings = Vec<(Level, String)>;

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let config = match app::load(&args.config) {
        Ok(config) => config,
        Err(mistakes) => {
            let text = mistakes.to_string();
            let found = [json!({"level": "bad", "text": text})];
            let object = json!({"version": 1, "ok": false, "findings": found});
            writeln!(out, "{}", if args.json { object.to_string() } else { text })?;
            return Ok(Exit::Rejected);
        }
    };
    let mut found = vec![(Level::Good, format!("`{}` loads", args.config.display()))];
    state(&config.state.path, &mut found);
    keys(&config, &mut found);
    people(&config, &mut found);
    chat(&config, &mut found);
    if !args.quick && config.state.path.join("journal").is_dir() {
        journal(&config, &mut found);
    }
    let bad = found.iter().any(|(level, _)| *level == Level::Bad);
    if args.json {
        let all: Vec<_> = found.iter().map(|(level, text)| json!({"level": level.word(), "text": text})).collect();
        writeln!(out, "{}", json!({"version": 1, "ok": !bad, "findings": all}))?;
    } else {
        for (level, text) in &found {
            writeln!(out, "{:4} {text}", if *level == Level::Bad { "BAD" } else { level.word() })?;
        }
    }
    Ok(if bad { Exit::Rejected } else { Exit::Ok })
}

/// The nearest folder that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/"))
}

fn state(path: &Path, found: &mut Findings) {
    let shown = path.display();
    if !path.is_dir() {
        found.push((Level::Hint, format!("the state folder `{shown}` is not there yet; the first start makes it")));
    }
    if let Some((level, what)) = app::file_system(existing(path)) {
        let level = if level { Level::Bad } else { Level::Hint };
        found.push((level, format!("the state folder `{shown}` is on {what}")));
    }
    match app::room(existing(path)) {
        Some((free, true)) => found.push((Level::Good, format!("{} MiB are free for the state", free >> 20))),
        Some((free, false)) => found.push((Level::Bad, format!("only {} MiB are free for the state", free >> 20))),
        None => {}
    }
    let files = ["payload.key", "checkpoint.key", "journal", ""];
    for file in files.iter().map(|f| path.join(f)).filter(|f| f.exists()) {
        let mode = fs::metadata(&file).map_or(0, |m| m.permissions().mode());
        if mode & 0o077 != 0 && (file.is_file() || file == *path) {
            let text = format!("`{}` may be read by others (mode {:o}); chmod go= it", file.display(), mode & 0o777);
            found.push((Level::Bad, text));
        }
    }
}

fn keys(config: &Config, found: &mut Findings) {
    if config.observe {
        let text = "policies.mode is `observe`: every call runs, whatever policy says";
        found.push((Level::Hint, text.to_owned()));
    }
    if config.state.encryption_key.is_none() {
        let text =
            "payloads are sealed with a key that lies beside them; give `state.encryption_key` to keep it elsewhere";
        found.push((Level::Hint, text.into()));
    }
    match &config.state.checkpoint_copy {
        None => {
            let text = "signed checkpoints stay in the state folder: who rolls it back as a whole is not found. Give \
                        `state.checkpoint_copy`, best on another disk";
            found.push((Level::Hint, text.into()));
        }
        Some(copy) if app::same_disk(existing(copy), existing(&config.state.path)) => {
            found.push((Level::Hint, "`state.checkpoint_copy` is on the disk of the state itself".into()));
        }
        Some(_) => found.push((Level::Good, "checkpoints are copied to another disk".into())),
    }
}

fn people(config: &Config, found: &mut Findings) {
    if config.identity.oidc.is_some() {
        let text =
            "who is in a reviewer group is the provider's word; whether each group has somebody is not known here";
        found.push((Level::Hint, text.into()));
        return;
    }
    if config.identity.reviewers.is_empty() && config.identity.slack.is_empty() {
        found.push((Level::Bad, "there are no reviewers: whatever is held expires".into()));
    }
    for tool in &config.tools {
        let owner = &tool.tool.owner;
        let slack = config.identity.slack.iter().map(|r| &r.groups);
        if !config.identity.reviewers.iter().map(|r| &r.groups).chain(slack).any(|groups| groups.contains(owner)) {
            let text = format!(
                "nobody is in `{owner}`, which owns the tool `{}`: possible duplicates of its unknown calls could not be released",
                tool.tool.name
            );
            found.push((Level::Bad, text));
        }
    }
}

/// Whether buttons in Slack can do anything.
fn chat(config: &Config, found: &mut Findings) {
    if !config.notify.iter().any(|r| matches!(r.channel, Channel::Slack(_))) {
        return;
    }
    if config.identity.slack.is_empty() {
        let text = "no account in Slack is a reviewer's (`identity.reviewers.slack`): its buttons decide nothing";
        found.push((Level::Hint, text.into()));
    }
    let url = config.reviews.url.as_deref().unwrap_or_default();
    let host = url.parse::<http::Uri>().ok().and_then(|u| u.host().map(str::to_ascii_lowercase)).unwrap_or_default();
    if !config.listen.allowed_hosts.contains(&host) {
        let text =
            format!("`{host}` of `reviews.url` is not in `listen.allowed_hosts`: callbacks of Slack are refused");
        found.push((Level::Bad, text));
    }
    let is_loopback = host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if host == "localhost" || is_loopback || !url.starts_with("https:") {
        let text = format!("Slack reaches buttons by https over the internet: not at `{url}`");
        found.push((Level::Hint, text));
    }
}

fn journal(config: &Config, found: &mut Findings) {
    let path = &config.state.path;
    let copy = config.state.checkpoint_copy.as_ref().and_then(|copy| fs::read_to_string(copy).ok());
    let old = (1..).map(|n| path.join(format!("index.bad{n}"))).take_while(|p| p.exists()).count();
    if old > 0 {
        let text = format!("{old} damaged indexes were set aside as `index.bad…`; they may be removed");
        found.push((Level::Hint, text));
    }
    if let Ok(trouble) = fs::read_to_string(path.join("history.trouble")) {
        found.push((Level::Bad, format!("{trouble}: calls with effects are refused until `holdpoint audit accept`")));
    }
    match audit::verify_signed(path, None, copy.as_slice()) {
        Ok(verified) => {
            let signed = verified.checkpoints.first().map_or(0, |c| c.size);
            let text = format!("the journal verifies: {} records, {signed} of them signed", verified.report.records);
            found.push((Level::Good, text));
        }
        // While a proxy writes, the newest batch may be half there.
        Err(audit::ReadError::Bad(bad)) if bad.torn => {
            found.push((Level::Hint, format!("the journal's end is torn, or being written: {bad}")));
        }
        Err(e) => found.push((Level::Bad, format!("{e}"))),
    }
}
