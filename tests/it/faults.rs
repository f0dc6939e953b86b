//! Disks that are full or read-only, journals that were damaged or put back, lock files of the dead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::binary::{Binary, Site, faketime};
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
        // The last one may have found the disk full between its send and its end: it was told what the tool said, and is
        // unknown now. Nothing else can have become of it.
        let unknown = n == last && got.code() == "outcome_unknown";
        assert!(
            unknown || (got.status, got.decision()) == (201, "replayed"),
            "o_{n} was told before: {:?}",
            got.json()
        );
    }
    assert_eq!(site.upstream.count(), before);
    assert_eq!(second.refund("o_held", 6000, &[]).await.json()["hold"], held);
    assert_eq!(second.refund("o_late", 100, &[]).await.status, 201);
    assert_eq!(second.stop().await, Some(0));
    let (code, said) = Site::verify(&site.state());
    assert_eq!(code, Some(0), "{said}");
}

/// An ext4 file system in a file, which turns read-only at the first error, as servers' disks do.
struct Disk(Mount, String);

impl Disk {
    fn new(at: &Path) -> Option<Self> {
        let image = at.with_extension("ext4");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir_all(at).unwrap();
        let ran = |c: &mut Command| c.output().is_ok_and(|o| o.status.success());
        let made = ran(Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal"]).arg(&image))
            && ran(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(&image).arg(at));
        if !made {
            eprintln!("skipped: this machine does not let tests mount a file system");
            return None;
        }
        let device = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(at).output().unwrap().stdout;
        let device = String::from_utf8(device).unwrap().trim().trim_start_matches("/dev/").to_owned();
        Some(Self(Mount(at.to_owned()), device))
    }

    /// The kernel finds an error.
    fn fail(&self) {
        fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", self.1), "a test").unwrap();
        assert!(fs::write(self.0.0.join("probe"), "x").is_err(), "it can still be written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_turns_read_only_while_it_runs_stops_effects_and_loses_nothing() {
    let site = site().await;
    let Some(disk) = Disk::new(&site.state()) else { return };
    let first = site.start().await;
    let key = [("idempotency-key", "k1")];
    assert_eq!(first.refund("o_1", 100, &key).await.status, 201);
    let held = first.refund("o_held", 6000, &[]).await.json()["hold"].clone();
    disk.fail();
    let sent = site.upstream.count();
    for (order, minor) in [("o_2", 100), ("o_3", 6000), ("o_4", 100)] {
        let got = first.refund(order, minor, &[]).await;
        assert_eq!((got.status, got.code().as_str()), (503, "unavailable"), "{:?}", got.json());
        assert_eq!(got.json()["executed"], "no");
    }
    assert_ne!(ready(&first).await, 200, "it says that it is ready");
    assert!(first.logged().contains("the journal cannot be written"), "{}", first.logged());
    assert_eq!(site.upstream.count(), sent);
    first.kill();
    let (code, said) = site.fails();
    assert!(code == Some(1) && said.contains("Read-only"), "{code:?} {said}");
    assert!(Command::new("umount").arg(site.state()).status().unwrap().success());
    let image = site.state().with_extension("ext4");
    let mounted = Command::new("mount").args(["-o", "loop"]).arg(image).arg(site.state()).status();
    assert!(mounted.unwrap().success());
    let second = site.start().await;
    assert_eq!(second.refund("o_1", 100, &key).await.decision(), "replayed");
    assert_eq!(second.refund("o_held", 6000, &[]).await.json()["hold"], held);
    assert_eq!(second.stop().await, Some(0));
    let (code, said) = Site::verify(&site.state());
    assert_eq!(code, Some(0), "{said}");
}

/// Days and hours back and forward between runs: what was recorded stands, what was over stays over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_between_runs_forgets_nothing_and_revives_nothing() {
    if faketime().is_none() {
        return eprintln!("skipped: faketime is not installed");
    }
    let mut site = site().await;
    let key = [("idempotency-key", "k1")];
    let first = site.start().await;
    assert_eq!(first.refund("o_1", 100, &key).await.status, 201);
    let held = first.refund("o_held", 6000, &[]).await.json()["hold"].as_str().unwrap().to_owned();
    assert_eq!(first.stop().await, Some(0));
    for (clock, state) in [("-2d", "held"), ("+5h", "expired"), ("-30d", "expired"), ("+0", "expired")] {
        site.clock = Some(clock);
        let run = site.start().await;
        // Its key is kept for an hour.
        let again = if clock == "+5h" { "allowed" } else { "replayed" };
        assert_eq!(run.refund("o_1", 100, &key).await.decision(), again, "{clock}");
        let call = run.get(&format!("/-/calls/{}", held.replacen("hold_", "call_", 1))).await;
        assert_eq!(call.json()["state"], state, "{clock}: {:?}", call.json());
        let sent = site.upstream.count();
        assert_eq!(run.refund(&format!("o_{clock}"), 100, &[]).await.status, 201, "{clock}");
        assert_eq!(site.upstream.count(), sent + 1, "{clock}");
        assert_eq!(run.stop().await, Some(0), "{clock}");
    }
    let (code, said) = Site::verify(&site.state());
    assert_eq!(code, Some(0), "{said}");
    let (_, exported) = Site::run(&["audit", "export", site.state().to_str().unwrap()]);
    let times: Vec<String> = exported.lines().filter_map(at).collect();
    assert!(times.len() > 10 && times.is_sorted(), "store time went back: {times:?}");
}

/// When the record of this line was written.
fn at(line: &str) -> Option<String> {
    serde_json::from_str::<serde_json::Value>(line).ok()?["at"].as_str().map(str::to_owned)
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
