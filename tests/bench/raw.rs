//! The raw journal loop: one writer, preallocated file, one `fdatasync` for all who wait; two records a call.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

type Waiter = mpsc::Sender<()>;

/// Calls per second, and the median latency of one call in microseconds. Each record has `size` bytes.
pub(crate) fn journal(dir: &Path, clients: usize, time: Duration, size: usize) -> (f64, f64) {
    let path = dir.join("raw.journal");
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![0u8; 64 << 20]).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let (tx, rx) = mpsc::channel::<Waiter>();
    let writer = std::thread::spawn(move || write(file, &rx, size));
    let end = Instant::now() + time;
    let workers: Vec<_> = (0..clients)
        .map(|_| {
            let tx = tx.clone();
            std::thread::spawn(move || call(&tx, end))
        })
        .collect();
    drop(tx);
    let mut all: Vec<u64> = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    writer.join().unwrap();
    std::fs::remove_file(path).unwrap();
    all.sort_unstable();
    (all.len() as f64 / time.as_secs_f64(), all[all.len() / 2] as f64 / 1000.0)
}

fn call(tx: &mpsc::Sender<Waiter>, end: Instant) -> Vec<u64> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let started = Instant::now();
        for _ in 0..2 {
            let (done, wait) = mpsc::channel();
            tx.send(done).unwrap();
            wait.recv().unwrap();
        }
        latencies.push(u64::try_from(started.elapsed().as_nanos()).unwrap());
    }
    latencies
}

fn write(mut file: File, rx: &mpsc::Receiver<Waiter>, size: usize) {
    let record = vec![7u8; size];
    let mut written = 0usize;
    while let Ok(first) = rx.recv() {
        let mut waiting = vec![first];
        waiting.extend(rx.try_iter());
        if written + waiting.len() * record.len() > 60 << 20 {
            file.seek(SeekFrom::Start(0)).unwrap();
            written = 0;
        }
        let batch = record.repeat(waiting.len());
        file.write_all(&batch).unwrap();
        file.sync_data().unwrap();
        written += batch.len();
        for waiter in waiting {
            waiter.send(()).unwrap_or_default();
        }
    }
}
