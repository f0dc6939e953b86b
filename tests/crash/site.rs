//! One state directory with its configuration, and the processes that come and go over it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;

use crate::ledger::{Killer, Upstream};
use crate::verify::KEEP;

pub const AGENTS: [&str; 2] = ["support-bot", "other-bot"];
pub const REVIEWERS: [&str; 7] = ["maya", "mia", "li", "lou", "ana", "omar", "pia"];
/// What journal segments end with.
const SEGMENT: &str = "log";
/// Currencies with little money behind them.
pub const SCARCE: usize = 26;

const CONFIG: &str = include_str!("config.yaml");
const POLICIES: &str = include_str!("policies.cedar");
const PEOPLE: &str = include_str!("people.cedar");

/// Which policies are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policies {
    Usual,
    /// More approval is demanded for what waits.
    Stricter,
    /// What waits is forbidden.
    Forbidding,
}

pub fn key_of(agent: &str) -> String {
    format!("{agent}-key-0123456789abcdef")
}

pub fn token_of(reviewer: &str) -> String {
    format!("{reviewer}-token-0123456789abcdef")
}

pub struct Site {
    pub dir: tempfile::TempDir,
    pub upstream: Upstream,
}

/// A running process.
pub struct Process {
    pub agents: SocketAddr,
    pub admin: SocketAddr,
    pub epoch: u64,
    child: Arc<Mutex<Child>>,
    over: watch::Receiver<Option<ExitStatus>>,
    log: Arc<Mutex<Vec<String>>>,
}

/// A process that ended before it served.
pub struct Ended {
    pub killed: bool,
    pub log: String,
}

impl Site {
    pub async fn new(seed: u64) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap(), upstream: Upstream::start(seed).await };
        let scarce: String =
            (0..SCARCE).map(|i| format!("  - {{ per: org, money: 30.00 {}, every: 30d }}\n", scarce(i))).collect();
        site.put(
            "holdpoint.yaml",
            &CONFIG.replace("UPSTREAM", &site.upstream.at.to_string()).replace("SCARCE\n", &scarce),
        );
        site.put("policies/people.cedar", PEOPLE);
        site.put("refund.json", include_str!("../../schemas/refund.json"));
        site.put("note.json", include_str!("note.json"));
        AGENTS.iter().for_each(|a| site.put(&format!("secrets/{a}"), &key_of(a)));
        REVIEWERS.iter().for_each(|r| site.put(&format!("secrets/{r}"), &token_of(r)));
        site
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where every journal segment that ever was is kept, so that the whole history can be read.
    pub fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    /// Links what is new in the journal into the archive.
    pub fn keep(&self) {
        let (from, to) = (self.state().join("journal"), self.archive().join("journal"));
        std::fs::create_dir_all(&to).unwrap();
        let names = |dir: &Path| -> BTreeSet<std::ffi::OsString> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|e| e.file_name());
            entries.filter(|n| Path::new(n).extension().is_some_and(|e| e == SEGMENT)).collect()
        };
        let (live, kept) = (names(&from), names(&to));
        // What is gone from the front was taken by retention; what is gone from the end never was.
        for name in kept.iter().filter(|n| !live.contains(*n) && live.first().is_some_and(|first| *n > first)) {
            let _ = std::fs::remove_file(to.join(name));
        }
        for name in &live {
            let inode = |path: PathBuf| std::fs::metadata(path).ok().map(|m| std::os::unix::fs::MetadataExt::ino(&m));
            if inode(from.join(name)) != inode(to.join(name)) {
                let _ = std::fs::remove_file(to.join(name));
                let _ = std::fs::hard_link(from.join(name), to.join(name));
            }
        }
    }

    /// As the configuration resolves it.
    pub fn upstream_url(&self) -> String {
        format!("http://{}/v2", self.upstream.at)
    }

    pub fn policies(&self, which: Policies) {
        let more = match which {
            Policies::Usual => "",
            Policies::Stricter => include_str!("stricter.cedar"),
            Policies::Forbidding => include_str!("forbidding.cedar"),
        };
        self.put("policies/agents.cedar", &format!("{POLICIES}{more}"));
    }

    /// A file stands where the index should be: it does not open, and is set aside.
    pub fn damage_index(&self) {
        let index = self.state().join("index");
        let _ = std::fs::remove_dir_all(&index);
        self.put("state/index", "not an index");
    }

    /// Starts it, to die at the given point, and waits until it serves or is over.
    pub async fn start(&self, point: Option<&str>, (forgets, rotates): (bool, bool)) -> Result<Process, Ended> {
        // As for the end-to-end tests: another build may be tried in the place of this one.
        let built = || env!("CARGO_BIN_EXE_holdpoint").into();
        let mut command = Command::new(std::env::var_os("HOLDPOINT_BIN").unwrap_or_else(built));
        command.args(["serve", "--cores", "2", "--config"]).arg(self.dir.path().join("holdpoint.yaml"));
        command.env("RUST_LOG", "holdpoint=warn,holdpoint::cli=info").env_remove("RUST_BACKTRACE");
        command.env("HOLDPOINT_BEAT_MS", "150").env("HOLDPOINT_SIGN_BEATS", "2").env_remove("HOLDPOINT_FAILPOINT");
        command.env("HOLDPOINT_SEGMENT_BYTES", if forgets || rotates { "65536" } else { "524288" });
        if forgets {
            command.env("HOLDPOINT_SHORTEN_BEATS", "2").env("HOLDPOINT_KEEP_MS", KEEP.as_millis().to_string());
        }
        if let Some(point) = point {
            command.env("HOLDPOINT_FAILPOINT", point);
        }
        self.upstream.coming();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (child, log) = (Arc::new(Mutex::new(child)), Arc::new(Mutex::new(Vec::new())));
        let (serving, mut served) = watch::channel(None);
        let (gone, over) = watch::channel(None);
        let (theirs, lines) = (Arc::clone(&child), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut epoch = 0;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                lines.lock().unwrap().push(line);
                if let Some(said) = entry["recovery"].as_str() {
                    epoch = epoch_of(said);
                }
                if entry["message"] == "serving" {
                    serving.send_replace(Some((entry, epoch)));
                }
            }
            let status = theirs.lock().unwrap().wait().unwrap();
            gone.send_replace(Some(status));
        });
        let mut ended = over.clone();
        let entry = tokio::select! {
            biased;
            entry = served.wait_for(Option::is_some) => entry.ok().and_then(|e| e.clone()),
            _ = ended.wait_for(Option::is_some) => None,
        };
        let Some((entry, epoch)) = entry else {
            let status = over.clone().wait_for(Option::is_some).await.unwrap().unwrap();
            return Err(Ended { killed: is_kill(status), log: log.lock().unwrap().join("\n") });
        };
        let at = |name: &str| entry[name].as_str().unwrap().parse().unwrap();
        self.upstream.epoch(epoch);
        Ok(Process { agents: at("agents"), admin: at("admin"), epoch, child, over, log })
    }
}

pub fn scarce(i: usize) -> String {
    format!("SC{}", char::from(b'A' + u8::try_from(i % SCARCE).unwrap_or(0)))
}

fn epoch_of(recovery: &str) -> u64 {
    let digits = recovery.split("epoch ").nth(1).unwrap_or_default();
    digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|d| d.parse().ok()).expect("an epoch")
}

fn is_kill(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

impl Process {
    pub fn killer(&self) -> Killer {
        let child = Arc::clone(&self.child);
        Box::new(move || child.lock().unwrap().kill().unwrap())
    }

    pub fn terminate(&self) {
        let id = self.child.lock().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    pub fn is_over(&self) -> bool {
        self.over.borrow().is_some()
    }

    /// Waits for its end: whether it was killed.
    pub async fn ended(&self) -> bool {
        is_kill(self.over.clone().wait_for(Option::is_some).await.unwrap().unwrap())
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.over.borrow().is_none() {
            let _ = self.child.lock().unwrap().kill();
        }
    }
}

/// Whether a file is there, for messages.
pub fn kept(dir: &Path) -> String {
    dir.display().to_string()
}
