//! The servers under test, each on core 0, all before one upstream.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// A running server; killed when dropped.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Not SIGKILL: a master must take its workers with it.
        drop(Command::new("kill").arg(self.0.id().to_string()).status());
        drop(self.0.wait());
    }
}

impl Process {
    /// SIGKILL: what a crash is.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// CPU time of the process and its children so far.
    pub(crate) fn cpu(&self) -> Duration {
        let mut pids = vec![self.0.id()];
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        pids.extend(
            std::fs::read_to_string(children)
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|p| p.parse::<u32>().ok()),
        );
        let nanos: u64 = pids.iter().map(|pid| run_time(*pid)).sum();
        Duration::from_nanos(nanos)
    }

    pub(crate) fn rss_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
    }
}

/// CPU time of this process so far, with all threads that it had.
pub(crate) fn own_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the name, which may hold spaces: user time is the 12th field, system time the 13th, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// First field of schedstat: nanoseconds on a CPU, over all threads.
fn run_time(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let one = |t: std::fs::DirEntry| std::fs::read_to_string(t.path().join("schedstat")).ok();
    tasks.filter_map(one).filter_map(|s| s.split_whitespace().next().and_then(|n| n.parse::<u64>().ok())).sum()
}

/// One row of the table.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) at: SocketAddr,
    pub(crate) request_file: PathBuf,
    pub(crate) process: Option<Process>,
    pub(crate) durable: bool,
    /// Each request carries a number of its own.
    pub(crate) unique: bool,
}

pub(crate) struct World {
    pub(crate) dir: PathBuf,
    pub(crate) targets: Vec<Target>,
    at: SocketAddr,
    _upstream: Process,
    _temp: tempfile::TempDir,
}

pub(crate) const KEY: &str = "bench-agent-key-0123456789";
pub(crate) const TOKEN: &str = "bench-reviewer-token-0123456789";

impl World {
    /// The upstream alone.
    pub(crate) fn upstream() -> Self {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dir = temp.path().to_owned();
        let mut upstream = pinned("1")
            .arg(std::env::current_exe().unwrap())
            .args(["upstream", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(upstream.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let at: SocketAddr = line.trim().parse().unwrap();
        Self { dir, targets: Vec::new(), at, _upstream: Process(upstream), _temp: temp }
    }

    /// A proxy whose writes are durable, in a home that may have a state already.
    pub(crate) fn write_target(&self, home: &Path) -> Target {
        let name = home.file_name().unwrap().to_str().unwrap();
        holdpoint(&self.dir, self.at, name, 100, &Call::Write)
    }

    pub(crate) fn start() -> Self {
        let mut world = Self::upstream();
        let (dir, at) = (world.dir.clone(), world.at);
        let body = note(false);
        let plain = request(&dir, "plain", "/notes/n_1/lines", at, &body, "");
        let mut targets = vec![Target {
            name: "direct".into(),
            at,
            request_file: plain,
            process: None,
            durable: false,
            unique: false,
        }];
        targets.push(nginx(&dir, at, &body));
        targets.push(holdpoint(&dir, at, "allow-all", 1, &Call::Rest));
        for policies in [10, 100, 1_000] {
            targets.push(holdpoint(&dir, at, &format!("all gates, {policies} policies"), policies, &Call::Rest));
        }
        targets.push(holdpoint(&dir, at, "allow-all, SSE", 1, &Call::RestEvents));
        for (name, policies) in [("allow-all", 1), ("100 policies", 100)] {
            targets.push(holdpoint(&dir, at, &format!("MCP JSON, {name}"), policies, &Call::Mcp("/tool")));
            targets.push(holdpoint(&dir, at, &format!("MCP SSE, {name}"), policies, &Call::Mcp("/events")));
        }
        targets.push(holdpoint(&dir, at, "durable write", 100, &Call::Write));
        world.targets = targets;
        world
    }
}

pub(crate) fn pinned(core: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]);
    command
}

pub(crate) fn note(unique: bool) -> Value {
    let tail = if unique { "00000000" } else { "" };
    json!({"author": "bench", "amountMinor": 1200, "urgent": false, "text": format!("{}{tail}", "y".repeat(900))})
}

fn request(dir: &Path, name: &str, path: &str, host: SocketAddr, body: &Value, more: &str) -> PathBuf {
    let body = body.to_string();
    let text = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    );
    let file = dir.join(format!("{}.request", name.replace([' ', ','], "_")));
    std::fs::write(&file, text).unwrap();
    file
}

fn nginx(dir: &Path, upstream: SocketAddr, body: &Value) -> Target {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        println!("installing the Debian package nginx");
        let installed = Command::new("apt-get").args(["install", "-y", "-qq", "nginx"]).stdout(Stdio::null()).status();
        assert!(installed.is_ok_and(|s| s.success()), "nginx is needed: apt-get install nginx");
    }
    let at = free();
    let prefix = dir.join("nginx");
    std::fs::create_dir_all(prefix.join("logs")).unwrap();
    let config = format!(
        "worker_processes 1; daemon off; pid nginx.pid; error_log stderr crit; events {{ worker_connections 1024; }}
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path body; proxy_temp_path proxy;
           fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
           upstream u {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}
           server {{ listen {at}; location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}"
    );
    std::fs::write(prefix.join("nginx.conf"), config).unwrap();
    let child = pinned("0").args(["nginx", "-p"]).arg(&prefix).args(["-c", "nginx.conf"]).spawn().unwrap();
    until_open(at);
    let request_file = request(dir, "nginx", "/notes/n_1/lines", at, body, "");
    Target { name: "nginx".into(), at, request_file, process: Some(Process(child)), durable: false, unique: false }
}

enum Call {
    Rest,
    RestEvents,
    Mcp(&'static str),
    Write,
}

/// Starts a proxy on core 0, with this many policies and these lines at the end of its configuration.
pub(crate) fn started(
    home: &Path,
    upstream: SocketAddr,
    policies: &str,
    more: &str,
) -> (Process, SocketAddr, SocketAddr) {
    std::fs::create_dir_all(home.join("policies")).unwrap();
    let put = |file: &str, text: &str| std::fs::write(home.join(file), text).unwrap();
    put("holdpoint.yaml", &format!("{}{more}", config(upstream)));
    put("policies/bench.cedar", policies);
    put("note.json", &schema().to_string());
    put("key", KEY);
    put("token", TOKEN);
    let definition = json!({"name": "add", "description": "Adds a line", "inputSchema": schema()});
    let lock = holdpoint::config::lock::Lock::of("tool", vec![definition]);
    put("tool.lock.json", &lock.text());
    put("events.lock.json", &lock.text().replacen("\"tool\": \"tool\"", "\"tool\": \"events\"", 1));
    let mut child = pinned("0")
        .arg(env!("CARGO_BIN_EXE_holdpoint"))
        .args(["serve", "--cores", "1", "--config"])
        .arg(home.join("holdpoint.yaml"))
        .env("RUST_LOG", "holdpoint=warn,holdpoint::cli=info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (agents, admin) = serving(&mut child);
    (Process(child), agents, admin)
}

fn holdpoint(dir: &Path, upstream: SocketAddr, name: &str, policies: usize, call: &Call) -> Target {
    let home = dir.join(name.replace([' ', ','], "_"));
    let (process, at, _) = started(&home, upstream, &cedar(policies), "");
    let auth = format!("Authorization: Bearer {KEY}\r\n");
    let request_file = match call {
        Call::Rest => request(dir, name, "/bench/notes/n_1/lines", at, &note(false), &auth),
        Call::RestEvents => request(dir, name, "/bench/notes/n_1/events", at, &note(false), &auth),
        Call::Write => request(dir, name, "/bench/notes/n_1/changes", at, &note(true), &auth),
        Call::Mcp(mount) => {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": note(false)}});
            request(dir, name, mount, at, &message, &format!("{auth}Accept: application/json, text/event-stream\r\n"))
        }
    };
    let durable = matches!(call, Call::Write);
    Target { name: name.to_owned(), at, request_file, process: Some(process), durable, unique: durable }
}

/// Reads the log until it says where it serves agents and people, then lets it flow away.
fn serving(child: &mut Child) -> (SocketAddr, SocketAddr) {
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    for line in log.by_ref().map_while(Result::ok) {
        if let Ok(entry) = serde_json::from_str::<Value>(&line)
            && entry["message"] == "serving"
        {
            std::thread::spawn(move || log.for_each(drop));
            let at = |name: &str| entry[name].as_str().unwrap().parse().unwrap();
            return (at("agents"), at("admin"));
        }
        eprintln!("{line}");
    }
    panic!("holdpoint did not start");
}

fn schema() -> Value {
    json!({"type": "object", "required": ["author", "amountMinor", "text"], "properties": {
        "author": {"type": "string", "maxLength": 64}, "amountMinor": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
        "urgent": {"type": "boolean"}, "text": {"type": "string", "maxLength": 4000}}})
}

fn config(upstream: SocketAddr) -> String {
    let mut operations = String::new();
    for i in 0..8 {
        writeln!(operations, "      op{i}: {{ match: POST /notes/:noteId/op{i}, effect: read, schema: note.json }}")
            .unwrap();
    }
    format!(
        r#"version: 1
listen: {{ agents: 127.0.0.1:0, admin: 127.0.0.1:0 }}
state: {{ path: state }}
policies: {{ dir: policies }}
identity:
  agents: {{ api_keys: [ {{ agent: bench, group: bench, key: {{ file: key }} }} ] }}
  reviewers: {{ tokens: [ {{ user: maya, groups: [leads], token: {{ file: token }} }} ] }}
workflows: {{ w: {{ owner: leads }} }}
tools:
  bench:
    kind: rest
    owner: leads
    mount: /bench
    upstream: {{ url: "http://{upstream}" }}
    operations:
      events:  {{ match: POST /notes/:noteId/events, effect: read, schema: note.json }}
      lines:   {{ match: POST /notes/:noteId/lines, effect: read, schema: note.json }}
      changes: {{ match: POST /notes/:noteId/changes, effect: write, schema: note.json }}
{operations}
  tool:
    kind: mcp
    owner: leads
    mount: /tool
    upstream: {{ url: "http://{upstream}/mcp" }}
    lock: tool.lock.json
    operations: {{ add: {{ effect: read }} }}
  events:
    kind: mcp
    owner: leads
    mount: /events
    upstream: {{ url: "http://{upstream}/events" }}
    lock: events.lock.json
    operations: {{ add: {{ effect: read }} }}
rates: [ {{ per: agent, limit: 10000000/s }}, {{ per: total, limit: 10000000/s }} ]
budgets: [ {{ per: run, calls: 1000000000 }} ]
"#
    )
}

/// One permit, and forbids that look at the arguments, spread over all operations: of 100 policies about 12 apply.
pub(crate) fn cedar(count: usize) -> String {
    let mut text = String::from(
        "@id(\"all\") permit (principal in Holdpoint::AgentGroup::\"bench\", action in Holdpoint::Action::\"call\", resource);\n\
         @id(\"see\") permit (principal in Holdpoint::Team::\"leads\", action == Holdpoint::Action::\"hold.view\", resource);\n",
    );
    let names =
        ["bench.lines", "tool.add", "bench.changes", "events.add", "bench.op1", "bench.op2", "bench.op3", "bench.op4"];
    for i in 0..count.saturating_sub(1) {
        let action = names[i % names.len()];
        writeln!(
            text,
            "@id(\"limit-{i}\") @reason(\"Too much.\") @approvers(\"leads\") forbid (principal, action == Holdpoint::Action::\"{action}\", resource) \
             when {{ context.input.amountMinor > {} }} unless {{ context.approval.granted }};",
            500_000 + i
        )
        .unwrap();
    }
    text
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn until_open(at: SocketAddr) {
    for _ in 0..200 {
        if std::net::TcpStream::connect(at).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nothing listens on {at}");
}
