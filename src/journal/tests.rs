use super::*;
use std::path::Path;

fn small() -> Options {
    Options { segment_bytes: 4096, preallocate: 1024, cache_bytes: 0 }
}

fn open(dir: &Path, options: Options) -> Journal {
    let mut log = Log::open(dir, options).unwrap();
    log.replay(0, |_| Ok(())).unwrap();
    log.start(Sealer::new(&[9; 32]).unwrap(), 0).unwrap()
}

fn event(text: &str) -> Render {
    let text = format!("{{\"type\":\"{text}\"}}");
    Box::new(move |out| {
        out.extend_from_slice(text.as_bytes());
        Ok(())
    })
}

fn add(journal: &Journal, n: u64, payload: &[u8]) -> (u64, Digest) {
    let sealed = journal.sealer().seal(payload.to_vec()).unwrap();
    let digest = sealed.meta.digest;
    let rotate = journal.wants_rotation();
    let seq = journal.append(Timestamp::from_millis(1), rotate, vec![sealed], |_| event(&format!("e{n}"))).unwrap();
    (seq, digest)
}

fn add_synced(journal: &Journal, n: u64) {
    let (seq, _) = add(journal, n, b"payload");
    journal.durable_blocking(seq).unwrap();
}

fn last_file(dir: &Path) -> PathBuf {
    segments(dir).unwrap().pop().unwrap().path
}

#[test]
fn frames_read_back_in_order_over_many_segments_and_payloads_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), small());
    let added: Vec<_> = (0..200u64)
        .map(|n| {
            let (seq, digest) = add(&journal, n, format!("payload {n}").as_bytes());
            journal.durable_blocking(seq).unwrap();
            (n, seq, digest)
        })
        .collect();
    assert!(segments(dir.path()).unwrap().len() > 5);
    let check = |journal: &Journal| {
        for (n, seq, digest) in &added {
            assert_eq!(journal.read_payload(*seq, 0, digest).unwrap(), format!("payload {n}"));
        }
        assert!(journal.read_payload(1, 1, &added[0].2).is_err());
    };
    check(&journal);
    drop(journal);
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.records, report.first_seq, report.last_seq), (200, Some(1), Some(200)));
    check(&open(dir.path(), small()));
    let mut log = Log::open(dir.path(), small()).unwrap();
    let mut first = 0;
    log.replay(150, |f| {
        first = if first == 0 { f.seq } else { first };
        Ok(())
    })
    .unwrap();
    assert!(first > 1 && first <= 150);
    check(&log.start(Sealer::new(&[9; 32]).unwrap(), 0).unwrap());
}

#[test]
fn waiting_frames_share_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options::default());
    let queue = lock(&journal.shared.queue);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|n| {
                scope.spawn({
                    let j = &journal;
                    move || add_synced(j, n)
                })
            })
            .collect();
        drop(queue);
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
    let syncs = journal.stats().syncs.load(Relaxed);
    assert_eq!(journal.stats().frames.load(Relaxed), 64);
    assert!(syncs < 64, "{syncs} syncs for 64 frames");
}

#[test]
fn a_torn_end_is_cut_off_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options::default());
    (0..3).for_each(|n| add_synced(&journal, n));
    let end = journal.stats().bytes.load(Relaxed);
    drop(journal);
    let whole = fs::read(last_file(dir.path())).unwrap();
    let start_of_last = {
        let mut frames = Frames::open(dir.path(), 0).unwrap();
        usize::try_from(frames.by_ref().nth(2).unwrap().unwrap().offset).unwrap()
    };
    for cut in [start_of_last + 1, start_of_last + 40, usize::try_from(end).unwrap() - 1] {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        fs::write(last_file(dir.path()), &torn).unwrap();
        assert!(matches!(verify(dir.path()), Err(ReadError::Bad(bad)) if bad.torn && bad.seq == 3));
        let journal = open(dir.path(), Options::default());
        assert!(journal.torn_bytes() > 0);
        assert_eq!(journal.head().seq, 2);
        add_synced(&journal, 9);
        drop(journal);
        assert_eq!(verify(dir.path()).unwrap().records, 3);
    }
}

#[test]
fn a_bad_record_before_a_synced_one_is_damage_and_open_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options::default());
    (0..3).for_each(|n| add_synced(&journal, n));
    drop(journal);
    let mut bytes = fs::read(last_file(dir.path())).unwrap();
    bytes[70] ^= 1;
    fs::write(last_file(dir.path()), &bytes).unwrap();
    let error = Log::open(dir.path(), Options::default()).unwrap().replay(0, |_| Ok(())).unwrap_err();
    let ReadError::Bad(bad) = error else { panic!("{error}") };
    assert_eq!((bad.seq, bad.offset, bad.torn), (1, 0, false));
    assert!(bad.segment.starts_with("journal-"));
}

/// Writes frames 2 to 4 behind the first one, as one batch or as three.
fn write_by_hand(dir: &Path, head: Head, durable: impl Fn(u64) -> u64) {
    let position = usize::try_from(verify_end(dir)).unwrap();
    let mut bytes = fs::read(last_file(dir)).unwrap();
    bytes.truncate(position);
    let mut prev = head.hash;
    for seq in 2..=4 {
        let event: Render = Box::new(|out| {
            out.extend_from_slice(b"{}");
            Ok(())
        });
        let at = Timestamp::from_millis(2);
        let draft = frame::Draft { seq, at, prev, durable: durable(seq), event, payloads: &[] };
        prev = frame::encode(draft, &mut bytes).unwrap();
    }
    bytes[position + 60] ^= 1;
    fs::write(last_file(dir), bytes).unwrap();
}

fn verify_end(dir: &Path) -> u64 {
    let mut frames = Frames::open(dir, 0).unwrap();
    frames.by_ref().for_each(drop);
    frames.position().unwrap().1
}

#[test]
fn a_batch_that_was_torn_in_its_middle_is_a_torn_end_but_later_batches_make_it_damage() {
    for (durable, refused) in [((|_| 1) as fn(u64) -> u64, false), (|seq| seq - 1, true)] {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path(), Options::default());
        add_synced(&journal, 0);
        let head = journal.head();
        drop(journal);
        write_by_hand(dir.path(), head, durable);
        let mut log = Log::open(dir.path(), Options::default()).unwrap();
        assert_eq!(log.replay(0, |_| Ok(())).is_err(), refused);
    }
}

#[test]
fn every_flipped_byte_of_a_small_journal_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options { segment_bytes: 700, ..small() });
    (0..12).for_each(|n| add_synced(&journal, n));
    drop(journal);
    let used: Vec<(PathBuf, usize)> = segments(dir.path())
        .unwrap()
        .into_iter()
        .map(|s| {
            let bytes = fs::read(&s.path).unwrap();
            let used = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
            (s.path, used)
        })
        .collect();
    assert!(used.len() >= 2);
    for (path, used) in used {
        let good = fs::read(&path).unwrap();
        for at in 0..used {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            assert!(verify(dir.path()).is_err(), "byte {at} of {}", path.display());
        }
        fs::write(&path, &good).unwrap();
    }
    verify(dir.path()).unwrap();
}

#[test]
fn a_missing_segment_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options { segment_bytes: 500, ..small() });
    (0..16).for_each(|n| add_synced(&journal, n));
    drop(journal);
    let all = segments(dir.path()).unwrap();
    fs::remove_file(&all[1].path).unwrap();
    assert!(matches!(verify(dir.path()), Err(ReadError::Bad(bad)) if bad.what.contains("missing")));
}

#[test]
fn a_segment_that_never_got_its_first_frame_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options::default());
    add_synced(&journal, 0);
    drop(journal);
    fs::write(dir.path().join(read::segment_name(2)), [0; 64]).unwrap();
    let journal = open(dir.path(), Options::default());
    add_synced(&journal, 1);
    assert_eq!(journal.head().seq, 2);
    drop(journal);
    assert_eq!(verify(dir.path()).unwrap().segments, 1);
}

#[test]
fn the_first_write_error_poisons_it_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options::default());
    add_synced(&journal, 0);
    journal.fail_from_now_on();
    let (seq, _) = add(&journal, 1, b"x");
    assert_eq!(journal.durable_blocking(seq), Err(Poisoned));
    assert!(!journal.healthy());
    assert_eq!(journal.append(Timestamp::default(), false, Vec::new(), |_| event("x")), Err(Poisoned));
}

#[test]
fn what_is_sealed_stands_nowhere_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options::default());
    let (seq, _) = add(&journal, 0, b"canary-4111111111111111");
    journal.durable_blocking(seq).unwrap();
    drop(journal);
    let bytes = fs::read(last_file(dir.path())).unwrap();
    assert!(!bytes.windows(6).any(|w| w == b"canary"));
}

#[test]
fn frames_of_one_batch_say_what_was_durable_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Options::default());
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let slow: Render = Box::new(move |out| {
        wait.recv().map_err(|e| e.to_string())?;
        event("slow")(out)
    });
    let first = journal.wants_rotation();
    journal.append(Timestamp::default(), first, Vec::new(), |_| slow).unwrap();
    add(&journal, 1, b"x");
    add(&journal, 2, b"x");
    go.send(()).unwrap();
    journal.durable_blocking(3).unwrap();
    drop(journal);
    let bytes = fs::read(last_file(dir.path())).unwrap();
    let offsets: Vec<_> = Frames::open(dir.path(), 0).unwrap().map(|f| f.unwrap().offset).collect();
    let durable = |o: &u64| frame::Header::parse(&bytes[usize::try_from(*o).unwrap()..]).unwrap().durable;
    let said: Vec<u64> = offsets.iter().map(durable).collect();
    assert_ne!(said, [0, 1, 2], "two of them were synced together");
}

#[test]
fn a_segment_is_longer_than_its_snapshot_however_long_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), Options { segment_bytes: 500, ..small() });
    let append = |journal: &Journal, rotate: bool, text: String| {
        let seq = journal.append(Timestamp::default(), rotate, Vec::new(), |_| event(&text)).unwrap();
        journal.durable_blocking(seq).unwrap();
    };
    assert!(journal.wants_rotation());
    append(&journal, true, "s".repeat(10_000));
    for reopened in [false, true] {
        if reopened {
            drop(journal);
            journal = open(dir.path(), Options { segment_bytes: 500, ..small() });
        }
        (0..20).for_each(|_| {
            assert!(!journal.wants_rotation(), "the snapshot alone fills no segment");
            append(&journal, false, "x".repeat(100));
        });
    }
    (0..200).for_each(|_| append(&journal, false, "x".repeat(100)));
    assert!(journal.wants_rotation());
}

#[test]
fn the_tree_follows_the_journal_through_deaths_and_rubbish() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), small());
    (0..50).for_each(|n| add_synced(&journal, n));
    let root = journal.root(50).unwrap();
    drop(journal);
    let path = dir.path().join("tree");
    let good = fs::read(&path).unwrap();
    assert_eq!(good.len(), 50 * 32);
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 5] = [
        |b| b.truncate(32 * 20 + 7),
        |b| b.clear(),
        |b| b.extend_from_slice(&[0; 4096]),
        |b| b[32 * 40..].fill(0),
        |b| b[32 * 49 + 5] ^= 1,
    ];
    for (n, damage) in damages.iter().enumerate() {
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let journal = open(dir.path(), small());
        assert_eq!(journal.root(50).unwrap(), root, "damage {n}");
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), good, "damage {n}");
    }
}
