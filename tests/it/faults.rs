//! Disks that are full or read-only, journals that were damaged or put back, lock files of the dead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::binary::{Binary, Site};
use crate::harness::{Setup, answer, send};

async fn site() -> Site {
    let site = Site::new(Setup::new()).await;
    site.upstream.script(|_| answer(201, &json!({"refund": "rf_1"})));
    site
}

/// A file system of its own in memory, as long as this lives.
struct Mount(PathBuf);

impl Mount {
    /// Nothing where mounting is not permitted; says so.
    fn new(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let out = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        let mounted = out.is_ok_and(|o| o.status.success());
        if !mounted {
            eprintln!("skipped: this machine does not let tests mount a file system");
        }
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

async fn ready(running: &Binary) -> u16 {
    send(running.admin, "GET", "/readyz", &[], b"").await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_state_directory_is_named_and_nothing_starts() {
    let site = site().await;
    let Some(_mount) = Mount::new(&site.state(), "ro,size=1m") else { return };
    let (code, said) = site.fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&site.state().display().to_string()) && said.contains("Read-only"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_nothing_is_sent_and_with_space_again_nothing_is_lost() {
    let site = site().await;
    let Some(_mount) = Mount::new(&site.state(), "size=12m") else { return };
    let first = site.start().await;
    let held = first.refund("o_held", 6000, &[]).await.json()["hold"].clone();
    let filler = site.state().join("filler");
    let mut told = Vec::new();
    let mut refused = None;
    for n in 0..5000 {
        if n == 3 {
            // All that is left: the copy fails when the disk is full, which is the point.
            let _ = fs::write(&filler, vec![1u8; 16 << 20]);
        }
        let before = site.upstream.count();
        let got = first.refund(&format!("o_{n}"), 100, &[("idempotency-key", &format!("k{n}"))]).await;
        if got.status == 201 {
            told.push(n);
            continue;
        }
        refused = Some((got, site.upstream.count() - before));
        break;
    }
    let (got, sent) = refused.expect("the disk never was full");
    // It was refused before anything was sent, or its answer could not be recorded: then nobody is told "no".
    if sent == 0 {
        assert_eq!((got.status, got.code().as_str()), (503, "unavailable"), "{:?}", got.json());
        assert_eq!(got.json()["executed"], "no");
    } else {
        assert_ne!(got.json()["executed"], "no", "{:?}", got.json());
    }
    let before = site.upstream.count();
    for (order, minor) in [("o_late", 100), ("o_late_held", 6000)] {
        let got = first.refund(order, minor, &[]).await;
        assert_eq!((got.status, got.code().as_str()), (503, "unavailable"), "{:?}", got.json());
        assert_eq!(got.json()["executed"], "no");
    }
    assert_ne!(ready(&first).await, 200, "it says that it is ready");
    assert_eq!(site.upstream.count(), before, "something was sent that nobody recorded");
    first.kill();
    fs::remove_file(&filler).unwrap();
    let second = site.start().await;
    assert_eq!(ready(&second).await, 200);
    let last = *told.last().unwrap();
    for n in [0, 1, 2, last] {
        let got = second.refund(&format!("o_{n}"), 100, &[("idempotency-key", &format!("k{n}"))]).await;
        assert_eq!((got.status, got.decision()), (201, "replayed"), "o_{n} was told before");
    }
    assert_eq!(site.upstream.count(), before);
    assert_eq!(second.refund("o_held", 6000, &[]).await.json()["hold"], held);
    assert_eq!(second.refund("o_late", 100, &[]).await.status, 201);
    assert_eq!(second.stop().await, Some(0));
    let (code, said) = Site::verify(&site.state());
    assert_eq!(code, Some(0), "{said}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_journal_that_was_put_back_reads_pass_and_nothing_with_effects_is_sent() {
    let site = site().await;
    let first = site.start().await;
    assert_eq!(first.refund("o_1", 1200, &[]).await.status, 201);
    assert_eq!(first.stop().await, Some(0));
    let (journal, older) = (site.state().join("journal"), site.dir.path().join("older"));
    copy(&journal, &older);
    let second = site.start().await;
    assert_eq!(second.refund("o_2", 1200, &[]).await.status, 201);
    assert_eq!(second.stop().await, Some(0));
    fs::remove_dir_all(&journal).unwrap();
    copy(&older, &journal);
    let third = site.start().await;
    let sent = site.upstream.count();
    for order in ["o_2", "o_3"] {
        let got = third.refund(order, 1200, &[]).await;
        assert_eq!((got.status, got.code().as_str()), (503, "unavailable"), "{:?}", got.json());
    }
    // A risky one may wait, but people cannot get it sent.
    let held = third.refund("o_4", 6000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(third.approve("maya", &held).await.status, 200);
    assert_ne!(third.refund("o_4", 6000, &[("prefer", "wait=2")]).await.status, 201);
    assert_eq!(site.upstream.count(), sent);
    assert_eq!(third.get("/crm/customers/c_1").await.status, 201, "reads go on");
    assert!(third.logged().contains("rollback detected"), "{}", third.logged());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_named_by_the_verifier_and_at_the_start() {
    let site = site().await;
    let first = site.start().await;
    for n in 0..5 {
        assert_eq!(first.refund(&format!("o_{n}"), 1200, &[]).await.status, 201);
    }
    assert_eq!(first.stop().await, Some(0));
    let segment = holdpoint::journal::segments(&site.state().join("journal")).unwrap().remove(0);
    let mut at = Vec::new();
    holdpoint::journal::verify_with(&site.state().join("journal"), |f| at.push(f.offset)).unwrap();
    let (seq, offset) = (4, at[3]);
    let mut bytes = fs::read(&segment.path).unwrap();
    bytes[usize::try_from(offset).unwrap() + 60] ^= 8;
    fs::write(&segment.path, bytes).unwrap();
    let named = format!("record {seq} in {} at byte {offset}", segment.name());
    let (code, said) = Site::verify(&site.state());
    assert!(code != Some(0) && said.contains(&named), "{code:?} {said}");
    let (code, said) = site.fails();
    assert!(code == Some(1) && said.contains(&named), "{code:?} {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_file_of_the_dead_stops_nobody_whatever_pid_it_names() {
    let site = site().await;
    let first = site.start().await;
    assert_eq!(first.refund("o_1", 1200, &[]).await.status, 201);
    first.kill();
    // In a container the pid is always 1; and a pid may be anybody's by now.
    for pid in [1, std::process::id()] {
        fs::write(site.state().join("lock"), format!("pid {pid}, epoch 1")).unwrap();
        let next = site.start().await;
        assert_eq!(next.refund("o_1", 1200, &[]).await.decision(), "replayed");
        next.kill();
    }
    assert_eq!(site.upstream.count(), 1);
}
