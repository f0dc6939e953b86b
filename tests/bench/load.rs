//! The load and the upstream: raw HTTP/1.1 over keep-alive connections, as little work as can be.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::setup::Target;

/// How to load.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) rate: Option<u64>,
    pub(crate) time: Duration,
}

/// One round's figures.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Round {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub(crate) errors: u64,
    pub(crate) first_error: String,
    pub(crate) cpu_us: f64,
    pub(crate) rss_mib: f64,
}

impl Round {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }
}

/// Runs the load in a process of its own on core 1.
pub(crate) fn run(target: &Target, plan: Plan) -> Round {
    let file = target.request_file.display().to_string();
    let rate = plan.rate.unwrap_or(0).to_string();
    let args = [
        "load".to_owned(),
        target.at.to_string(),
        file,
        plan.connections.to_string(),
        rate,
        plan.time.as_millis().to_string(),
        target.unique.to_string(),
    ];
    let out = Command::new("taskset")
        .args(["-c", "1"])
        .arg(std::env::current_exe().unwrap())
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("load: {e}: {}", String::from_utf8_lossy(&out.stdout)))
}

pub(crate) fn child(args: &[String]) {
    let at: SocketAddr = args[0].parse().unwrap();
    let request = std::fs::read(&args[1]).unwrap();
    let connections: usize = args[2].parse().unwrap();
    let rate: u64 = args[3].parse().unwrap();
    let time = Duration::from_millis(args[4].parse().unwrap());
    let unique: bool = args[5].parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let round = runtime.block_on(drive(at, request, connections, rate, time, unique));
    println!("{}", serde_json::to_string(&round).unwrap());
}

async fn drive(at: SocketAddr, request: Vec<u8>, connections: usize, rate: u64, time: Duration, unique: bool) -> Round {
    let start = Instant::now() + Duration::from_millis(300);
    let end = start + time;
    let gap = (rate > 0).then(|| Duration::from_secs_f64(connections as f64 / rate as f64));
    let tasks: Vec<_> = (0..connections)
        .map(|i| tokio::spawn(client(at, request.clone(), i, connections, start, end, gap, unique)))
        .collect();
    let mut all: Vec<u64> = Vec::new();
    let mut round = Round { seconds: time.as_secs_f64(), ..Round::default() };
    for task in tasks {
        let (latencies, error) = task.await.unwrap();
        all.extend(latencies);
        if let Some(error) = error {
            round.errors += 1;
            round.first_error = error;
        }
    }
    all.sort_unstable();
    round.requests = all.len() as u64;
    if !all.is_empty() {
        round.p50_us = all[all.len() / 2] as f64 / 1000.0;
        round.p99_us = all[all.len() * 99 / 100] as f64 / 1000.0;
    }
    round
}

#[expect(clippy::too_many_arguments, reason = "one place that calls it")]
async fn client(
    at: SocketAddr,
    mut request: Vec<u8>,
    i: usize,
    of: usize,
    start: Instant,
    end: Instant,
    gap: Option<Duration>,
    unique: bool,
) -> (Vec<u64>, Option<String>) {
    let mut latencies = Vec::new();
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mark = unique.then(|| request.windows(8).position(|w| w == b"00000000").expect("a place for the number"));
    let mut buffer = Vec::with_capacity(8192);
    let offset = gap.map_or(Duration::ZERO, |g| g.mul_f64(i as f64 / of as f64));
    let mut intended = start + offset;
    let mut number = 0u64;
    loop {
        if gap.is_some() {
            tokio::time::sleep_until(intended.into()).await;
        }
        let sent = if gap.is_some() { intended } else { Instant::now() };
        if sent >= end {
            return (latencies, None);
        }
        if let Some(at) = mark {
            number += 1;
            let text = format!("{:08x}", (i as u64) << 24 | number);
            request[at..at + 8].copy_from_slice(&text.as_bytes()[..8]);
        }
        if let Err(e) = stream.write_all(&request).await {
            return (latencies, Some(e.to_string()));
        }
        match answer(&mut stream, &mut buffer).await {
            Ok(()) if sent >= start => latencies.push(u64::try_from(sent.elapsed().as_nanos()).unwrap()),
            Ok(()) => {}
            Err(e) => return (latencies, Some(e)),
        }
        if let Some(gap) = gap {
            intended += gap;
        }
    }
}

async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(), String> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await.map_err(|e| e.to_string())? == 0 {
            return Err("closed".into());
        }
        let Some((head, length)) = framed(buffer) else { continue };
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(buffer).into_owned());
        }
        let whole =
            if is_chunked(&buffer[..head]) { buffer.ends_with(b"0\r\n\r\n") } else { buffer.len() >= head + length };
        if whole {
            return Ok(());
        }
    }
}

fn is_chunked(head: &[u8]) -> bool {
    head.windows(7).any(|w| w.eq_ignore_ascii_case(b"chunked"))
}

/// End of the head, and the body's length.
fn framed(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    Some((head, length.unwrap_or(0)))
}

/// Answers every request with the same 1 KiB, below `/events` as one server-sent event; the JSON-RPC id is always 1.
pub(crate) fn upstream(at: &str) {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{}"}}]}}}}"#,
        "x".repeat(940)
    );
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer: &'static [u8] = (head + &body).into_bytes().leak();
    let event = format!("event: message\ndata: {body}\n\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let events: &'static [u8] = format!("{head}{:x}\r\n{event}\r\n0\r\n\r\n", event.len()).into_bytes().leak();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(at).await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer, events));
        }
    });
}

async fn serve(mut stream: TcpStream, answer: &'static [u8], events: &'static [u8]) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::with_capacity(8192);
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while let Some((head, length)) = framed(&buffer) {
            if buffer.len() < head + length {
                break;
            }
            let line = buffer.iter().position(|b| *b == b'\r').unwrap_or(0);
            let of_events = buffer[..line].windows(7).any(|w| w == b"/events");
            buffer.drain(..head + length);
            if stream.write_all(if of_events { events } else { answer }).await.is_err() {
                return;
            }
        }
    }
}
