//! `holdpoint init`: from nothing to a configuration that loads.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::init_text::Summary;
use super::{Exit, check, lock, runtime};
use crate::config;
use crate::init::{self, At, Document, File, Secrets, Tool};
use crate::wire::tls;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  holdpoint init --openapi petstore.yaml --dir guard\n  \
    holdpoint init --mcp http://127.0.0.1:3001/mcp --token-env TICKETS_TOKEN\n  \
    holdpoint init --mcp-command 'npx -y @modelcontextprotocol/server-everything'")]
pub(super) struct Args {
    /// An OpenAPI document of version 3, in JSON or YAML. May be given several times.
    #[arg(long, value_name = "FILE")]
    openapi: Vec<PathBuf>,
    /// The URL of an MCP server over HTTP. May be given several times.
    #[arg(long, value_name = "URL")]
    mcp: Vec<String>,
    /// A command that starts an MCP server on its standard input and output, as one text. May be given several times.
    #[arg(long, value_name = "COMMAND")]
    mcp_command: Vec<String>,
    /// The folder to write into; made when it does not exist.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The name of a tool; once for each, in the order of documents, URLs, commands. Else taken from what it says.
    #[arg(long)]
    name: Vec<String>,
    /// Where the tool of an OpenAPI document is; once for each document, in their order. Else its first server.
    #[arg(long, value_name = "URL")]
    upstream: Vec<String>,
    /// The environment variable with the bearer token of the MCP servers under `--mcp`.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// An environment variable that the commands get. May be given several times.
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    ensure!(
        !(args.openapi.is_empty() && args.mcp.is_empty() && args.mcp_command.is_empty()),
        "nothing to draft from: give `--openapi FILE`, `--mcp URL` or `--mcp-command '…'`"
    );
    let fixed = ["holdpoint.yaml", "policies", "schemas", "secrets", "state"];
    refuse_existing(&args.dir, fixed.iter().map(Path::new))?;
    let made = !args.dir.exists();
    fs::create_dir_all(&args.dir).with_context(|| format!("cannot make `{}`", args.dir.display()))?;
    let tools = tools(args).inspect_err(|_| forget(&args.dir, made))?;
    let secrets = Secrets { agent: random()?, reviewer: random()? };
    let files = init::files(&tools, &secrets);
    refuse_existing(&args.dir, files.iter().map(|f| f.path.as_path()))?;
    for file in &files {
        write(&args.dir, file).with_context(|| format!("cannot write `{}`", args.dir.join(&file.path).display()))?;
    }
    let report = check::look(&args.dir.join("holdpoint.yaml"), None, true)?;
    let summary = Summary { dir: &args.dir, tools: &tools, files: &files, report: &report };
    summary.print(args.json, out)?;
    Ok(if report.errors() == 0 { Exit::Ok } else { Exit::Rejected })
}

/// A folder that was made for nothing goes again, if it is empty.
fn forget(dir: &Path, made: bool) {
    if made {
        drop(fs::remove_dir(dir));
    }
}

fn refuse_existing<'a>(dir: &Path, paths: impl Iterator<Item = &'a Path>) -> anyhow::Result<()> {
    let there: Vec<String> =
        paths.map(|p| dir.join(p)).filter(|p| p.symlink_metadata().is_ok()).map(|p| p.display().to_string()).collect();
    ensure!(there.is_empty(), "already there, and nothing is overwritten: {}; give another `--dir`", there.join(", "));
    Ok(())
}

fn write(dir: &Path, file: &File) -> std::io::Result<()> {
    let path = dir.join(&file.path);
    let (folder, mode) = if file.secret { (0o700, 0o600) } else { (0o777, 0o666) };
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(folder).create(parent)?;
    }
    let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    to.write_all(file.text.as_bytes())
}

/// 24 random bytes, in hex.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0u8; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn tools(args: &Args) -> anyhow::Result<Vec<Tool>> {
    let count = args.openapi.len() + args.mcp.len() + args.mcp_command.len();
    ensure!(args.name.len() <= count, "more names than tools");
    ensure!(args.upstream.len() <= args.openapi.len(), "`--upstream` belongs to a document of `--openapi`");
    let mut names = Names { given: args.name.clone().into_iter(), taken: BTreeSet::new() };
    let mut all = Vec::new();
    for (i, path) in args.openapi.iter().enumerate() {
        all.push(openapi(path, args.upstream.get(i).map(String::as_str), &mut names)?);
    }
    for url in &args.mcp {
        let name = names.next(init::url_name(url), "mcp")?;
        all.push(mcp(args, name, At::Url(url.clone()))?);
    }
    for text in &args.mcp_command {
        let split: Vec<String> = shlex::split(text).unwrap_or_default();
        ensure!(!split.is_empty(), "`{text}` is not a command: its quotes do not match");
        let name = names.next(init::command_name(&split), "mcp")?;
        all.push(mcp(args, name, At::Command(split.into_iter().map(|part| from_there(part, &args.dir)).collect()))?);
    }
    Ok(all)
}

/// The names of the command line, then those that tools have by themselves.
struct Names {
    given: std::vec::IntoIter<String>,
    taken: BTreeSet<String>,
}

impl Names {
    fn next(&mut self, own: Option<String>, otherwise: &str) -> anyhow::Result<String> {
        let Some(given) = self.given.next() else {
            return Ok(init::unique(&own.unwrap_or_else(|| otherwise.to_owned()), &mut self.taken));
        };
        let legal = given.starts_with(|c: char| c.is_ascii_lowercase())
            && given.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        ensure!(legal, "`{given}` is no tool's name: `a-z`, `0-9`, `_` and `-`, beginning with a letter");
        ensure!(self.taken.insert(given.clone()), "the name `{given}` stands twice");
        Ok(given)
    }
}

fn openapi(path: &Path, upstream: Option<&str>, names: &mut Names) -> anyhow::Result<Tool> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{shown}`"))?;
    let document = Document::read(&text).map_err(|why| anyhow::anyhow!("`{shown}`: {why}"))?;
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let own = document.title().and_then(init::title_name).or_else(|| init::title_name(stem));
    let name = names.next(own, "tool")?;
    init::openapi_tool(&name, &document, upstream).map_err(|why| anyhow::anyhow!("`{shown}`: {why}"))
}

fn mcp(args: &Args, name: String, at: At) -> anyhow::Result<Tool> {
    tls::install_provider();
    let (source, token, env) = match &at {
        At::Url(url) => (Ok(url.as_str()), args.token_env.clone(), Vec::new()),
        At::Command(command) => (Err(command.as_slice()), None, args.env.clone()),
    };
    let upstream = match config::upstream(source, token.as_deref(), &env, &args.dir) {
        Ok(upstream) => upstream,
        Err(why) => bail!("{name}: {why}"),
    };
    let definitions = runtime()?.block_on(lock::fetched(&name, std::slice::from_ref(&name), &upstream))?;
    let tool = init::mcp_tool(&name, at, definitions).map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
    Ok(Tool { token, env, ..tool })
}

/// A command runs in the folder of the draft: a path that is one from here must be one from there.
fn from_there(part: String, dir: &Path) -> String {
    let path = Path::new(&part);
    let moves = part.contains('/') && path.is_relative() && path.exists() && !is_here(dir);
    if !moves {
        return part;
    }
    std::path::absolute(path).ok().and_then(|p| p.into_os_string().into_string().ok()).unwrap_or(part)
}

fn is_here(dir: &Path) -> bool {
    matches!((dir.canonicalize(), Path::new(".").canonicalize()), (Ok(a), Ok(b)) if a == b)
}
