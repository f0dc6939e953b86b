//! The real binary as a process of its own: started, killed, signalled, its log read.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Got, SUPPORT_KEY, Setup, Upstream, send, token, try_send, until};

/// A state directory and an upstream; processes come and go.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub upstream: Upstream,
    /// How far the clock of its processes is from ours, as [`faketime`] writes it.
    pub clock: Option<&'static str>,
    /// More of its environment.
    pub envs: Vec<(&'static str, &'static str)>,
}

/// One run of `holdpoint serve`. Dropped, it is killed.
pub struct Binary {
    child: Child,
    pub agents: SocketAddr,
    pub admin: SocketAddr,
    pub log: Arc<Mutex<Vec<String>>>,
}

impl Site {
    pub async fn new(setup: Setup) -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
            upstream: Upstream::start().await,
            clock: None,
            envs: Vec::new(),
        };
        setup.write(site.dir.path(), site.upstream.at);
        site
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdpoint"));
        if let (Some(offset), Some(library)) = (self.clock, faketime()) {
            command.env("LD_PRELOAD", library).envs([("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
        }
        command.envs(self.envs.iter().copied());
        command.args(["serve", "--cores", "2", "--config"]).arg(self.dir.path().join("holdpoint.yaml"));
        command.env("RUST_LOG", "debug").env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it serves.
    pub async fn start(&self) -> Binary {
        let mut child = self.command().stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let serving = until(|| {
            let lines = log.lock().unwrap();
            let parsed = lines.iter().filter_map(|l| serde_json::from_str::<Value>(l).ok());
            parsed.into_iter().find(|l| l["message"] == "serving").or_else(|| {
                let over = child.try_wait().unwrap();
                over.map(|status| panic!("it ended with {status}: {}", lines.join("\n")))
            })
        })
        .await;
        let at = |name: &str| serving[name].as_str().unwrap().parse().unwrap();
        Binary { agents: at("agents"), admin: at("admin"), child, log }
    }

    /// Starts it where it cannot: how it ends, and what it says.
    pub fn fails(&self) -> (Option<i32>, String) {
        let out = self.command().output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    /// Another verb of the binary: exit code and standard output.
    pub fn run(args: &[&str]) -> (Option<i32>, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_holdpoint")).args(args).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// `holdpoint audit verify` on this state directory, or on another.
    pub fn verify(dir: &Path) -> (Option<i32>, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_holdpoint")).args(["audit", "verify"]).arg(dir).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

/// The library that gives a process another clock, where it is installed.
pub fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|library| library.exists())
}

impl Binary {
    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// SIGTERM, and how it ends.
    pub async fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        until(|| self.child.try_wait().unwrap()).await.code()
    }

    /// How it ends by itself.
    pub async fn ends(mut self) -> Option<i32> {
        until(|| self.child.try_wait().unwrap()).await.code()
    }

    pub fn logged(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// As the support agent; nothing when the process dies meanwhile.
    pub async fn try_refund(&self, order: &str, minor: i64, more: &[(&str, &str)]) -> Option<Got> {
        let body = json!({"customerId": "c_1", "amountMinor": minor, "currency": "EUR"}).to_string();
        let key = format!("Bearer {SUPPORT_KEY}");
        let mut headers = vec![("authorization", key.as_str()), ("content-type", "application/json")];
        headers.extend_from_slice(more);
        try_send(self.agents, "POST", &format!("/crm/orders/{order}/refunds"), &headers, body.as_bytes()).await
    }

    pub async fn refund(&self, order: &str, minor: i64, more: &[(&str, &str)]) -> Got {
        self.try_refund(order, minor, more).await.expect("no answer")
    }

    /// As the support agent, without a body.
    pub async fn get(&self, path: &str) -> Got {
        let key = format!("Bearer {SUPPORT_KEY}");
        send(self.agents, "GET", path, &[("authorization", &key)], b"").await
    }

    pub async fn reviewer(&self, name: &str, method: &str, path: &str, body: &str) -> Got {
        let bearer = format!("Bearer {}", token(name));
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let sent = if body.is_empty() { &headers[..1] } else { &headers };
        send(self.admin, method, path, sent, body.as_bytes()).await
    }

    pub async fn approve(&self, name: &str, hold: &str) -> Got {
        let read = self.reviewer(name, "GET", &format!("/v1/holds/{hold}"), "").await;
        let vote = json!({"digest": read.json()["digest"], "justification": "double charge"}).to_string();
        self.reviewer(name, "POST", &format!("/v1/holds/{hold}/approve"), &vote).await
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
