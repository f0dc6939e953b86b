//! A child process: how it is started, and how it is ended.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::call::visible;
use crate::config::StdioServer;

use super::lines::{Line, Lines};

/// What a child inherits; everything else it is given by name.
const INHERITED: [&str; 11] =
    ["PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "USER", "LOGNAME", "SHELL", "TERM"];
/// Values of its environment from this length on are hidden in the log: shorter ones are modes and numbers, not secrets.
const HIDDEN: usize = 12;
/// A line of its standard error may be so long in the log.
const LOG_LINE: usize = 2 << 10;
/// How long it may take to end when its standard input is closed, on SIGTERM, and on SIGKILL.
const PATIENCE: [(Option<Signal>, Duration); 3] = [
    (None, Duration::from_secs(1)),
    (Some(Signal::TERM), Duration::from_secs(3)),
    (Some(Signal::KILL), Duration::from_secs(5)),
];
/// What it said last is read for so long.
const LAST_WORDS: Duration = Duration::from_millis(200);
const CHUNK: usize = 64 << 10;

/// A child and its standard error.
#[derive(Debug)]
pub(super) struct Process {
    tool: String,
    /// Its process group, which may outlive it.
    group: Option<Pid>,
    /// What it was given by reference, which no log may show.
    secrets: Vec<String>,
    child: Child,
    stderr: Option<ChildStderr>,
    read: BytesMut,
    said: Lines,
}

/// Starts the command in a process group of its own, so that a terminal's interrupt does not end it before the drain.
///
/// # Errors
/// Why it cannot be started.
pub(super) fn start(tool: &str, server: &StdioServer) -> Result<(Process, ChildStdin, ChildStdout), String> {
    let mut command = Command::new(&server.program);
    command.args(&server.args).current_dir(&server.cwd).env_clear();
    command.envs(INHERITED.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
    command.envs(server.env.iter().map(|(name, value)| (name, value.reveal())));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| format!("`{}` cannot be started: {e}", server.program))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else { return Err("it has no pipes".into()) };
    let stderr = child.stderr.take();
    tracing::info!(tool.name = tool, pid = child.id(), "the tool's server was started");
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let secrets = server.env.values().map(|value| value.reveal().to_owned()).filter(|v| v.len() >= HIDDEN).collect();
    let process = Process {
        tool: tool.to_owned(),
        group,
        secrets,
        child,
        stderr,
        read: BytesMut::new(),
        said: Lines::new(LOG_LINE),
    };
    Ok((process, stdin, stdout))
}

impl Process {
    /// Its end; until then what it says on its standard error goes to the log. May be dropped and asked again.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            let Some(stderr) = &mut self.stderr else { return shown(self.child.wait().await) };
            self.read.reserve(CHUNK);
            tokio::select! {
                status = self.child.wait() => return shown(status),
                read = stderr.read_buf(&mut self.read) => self.heard(read),
            }
        }
    }

    fn heard(&mut self, read: std::io::Result<usize>) {
        let bytes = self.read.split();
        for line in self.said.push(&bytes) {
            self.log(&line);
        }
        if !matches!(read, Ok(1..)) {
            self.stderr = None;
            if let Some(line) = self.said.rest() {
                self.log(&line);
            }
        }
    }

    /// It is the tool that speaks: nothing of it is a line or a field of ours.
    fn log(&self, line: &Line) {
        let (bytes, cut) = match line {
            Line::Whole(bytes) => (bytes, ""),
            Line::TooLong(bytes) => (bytes, "…"),
        };
        let mut said = format!("{}{cut}", visible(&String::from_utf8_lossy(bytes)));
        for secret in &self.secrets {
            said = said.replace(secret.as_str(), "***");
        }
        tracing::info!(tool.name = self.tool, said, "the tool's server says");
    }

    /// Waits for its end, and helps it along. Both its pipes must be closed by now. Gives what became of it.
    pub(super) async fn bury(mut self) -> String {
        let mut status = "it does not end".to_owned();
        for (signal, patience) in PATIENCE {
            if let Some(signal) = signal {
                self.signal(signal);
            }
            if let Ok(ended) = tokio::time::timeout(patience, self.ended()).await {
                status = ended;
                break;
            }
        }
        // A program like `npx` may be gone before the server that it started.
        self.signal(Signal::TERM);
        let last = async {
            while let Some(stderr) = &mut self.stderr {
                self.read.reserve(CHUNK);
                let read = stderr.read_buf(&mut self.read).await;
                self.heard(read);
            }
        };
        if tokio::time::timeout(LAST_WORDS, last).await.is_err() {
            tracing::debug!(tool.name = self.tool, "its standard error is still open: a child of its own lives on");
        }
        self.signal(Signal::KILL);
        tracing::info!(tool.name = self.tool, status, "the tool's server has ended");
        status
    }

    /// To its whole group: a program like `npx` has the server as a child of its own.
    fn signal(&self, signal: Signal) {
        let sent = self.group.map(|group| kill_process_group(group, signal));
        tracing::debug!(tool.name = self.tool, ?signal, ?sent, "asked to end");
    }
}

fn shown(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("it ended with {status}"),
        Err(e) => format!("its end cannot be seen: {e}"),
    }
}
