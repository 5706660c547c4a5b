use super::*;

fn disk(seed: u64) -> Disk {
    Disk::new(Chance::new(seed))
}

fn text(file: &DiskFile) -> String {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read(0, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn named(disk: &Disk, name: &str) -> DiskFile {
    let file = disk.open(name).unwrap();
    disk.sync_names().unwrap();
    file
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..200 {
        let disk = disk(seed);
        let file = named(&disk, "a");
        file.write(0, b"kept").unwrap();
        file.sync().unwrap();
        file.write(4, b", and this perhaps").unwrap();
        assert_eq!(text(&file), "kept, and this perhaps");
        disk.crash();
        assert!(text(&disk.open("a").unwrap()).starts_with("kept"));
    }
}

#[test]
fn of_what_was_not_synced_all_fates_happen() {
    let (mut lost, mut torn, mut all, mut gap) = (0, 0, 0, 0);
    for seed in 0..500 {
        let disk = disk(seed);
        let file = named(&disk, "a");
        for (at, piece) in [(0, b"aaaa"), (4, b"bbbb"), (8, b"cccc")] {
            file.write(at, piece).unwrap();
        }
        disk.crash();
        let left = text(&disk.open("a").unwrap());
        match left.as_str() {
            "" => lost += 1,
            "aaaabbbbcccc" => all += 1,
            "\0\0\0\0bbbb" | "\0\0\0\0\0\0\0\0cccc" | "aaaa\0\0\0\0cccc" | "\0\0\0\0bbbbcccc" => {
                gap += 1
            }
            left if left.trim_end_matches('\0').len() % 4 != 0 => torn += 1,
            _ => {}
        }
        let tally = disk.take_tally();
        assert!(tally.of(Fault::TornWrite) <= 1 && tally.of(Fault::LostWrite) <= 3);
    }
    assert!(
        lost > 50 && torn > 50 && all > 5 && gap > 8,
        "{lost} {torn} {all} {gap}"
    );
}

#[test]
fn a_killed_process_loses_nothing_that_it_wrote_and_its_files_are_closed() {
    let disk = disk(1);
    let file = disk.open("a").unwrap();
    file.write(0, b"written").unwrap();
    disk.kill();
    assert!(file.write(0, b"by a ghost").is_err());
    assert_eq!(text(&disk.open("a").unwrap()), "written");
}

#[test]
fn a_process_dies_at_the_operation_that_was_named_and_does_nothing_after_it() {
    let disk = disk(1);
    let file = disk.open("a").unwrap();
    disk.die_after(1);
    file.write(0, b"a").unwrap();
    assert!(file.write(1, b"b").is_err() && disk.is_dead());
    assert!(file.sync().is_err() && disk.open("a").is_err());
    disk.kill();
    assert_eq!(text(&disk.open("a").unwrap()), "a");
}

#[test]
fn after_a_failed_sync_what_is_read_is_what_is_durable() {
    for seed in 0..100 {
        let disk = disk(seed);
        let file = named(&disk, "a");
        file.write(0, b"aaaa").unwrap();
        file.sync().unwrap();
        disk.fail_sync_after(0);
        file.write(0, b"bb").unwrap();
        file.write(2, b"cc").unwrap();
        assert!(file.sync().is_err());
        let left = text(&file);
        disk.crash();
        assert_eq!(text(&disk.open("a").unwrap()), left);
        assert!(["aaaa", "bbaa", "aacc", "bbcc"].contains(&left.as_str()));
    }
}

#[test]
fn a_full_disk_takes_only_what_needs_no_space() {
    let disk = disk(1);
    let file = disk.open("a").unwrap();
    file.write(0, b"a").unwrap();
    disk.set_full(true);
    file.write(1, b"b").unwrap();
    let refused = file.write(4_096, b"c").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    assert!(file.set_len(1 << 20).is_err() && disk.open("b").is_err());
    disk.set_full(false);
    file.write(4_096, b"c").unwrap();
    assert_eq!(disk.take_tally().of(Fault::DiskFull), 3);
}

#[test]
fn a_name_that_was_not_synced_may_be_lost_and_one_that_was_is_not() {
    let (mut lost, mut renamed) = (0, 0);
    for seed in 0..100 {
        let disk = disk(seed);
        named(&disk, "old").write(0, b"x").unwrap();
        disk.open("new").unwrap();
        disk.rename("old", "older").unwrap();
        disk.crash();
        match &*disk.list().unwrap() {
            [old] if old == "old" => lost += 1,
            [new, older] if new == "new" && older == "older" => renamed += 1,
            [new, old] if new == "new" && old == "old" => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 10 && renamed > 10, "{lost} {renamed}");
}

#[test]
fn a_disk_that_lies_is_put_back_to_an_earlier_sync() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        let file = named(&disk, "a");
        disk.lie();
        for (at, piece) in [(0, b"a"), (1, b"b"), (2, b"c")] {
            file.write(at, piece).unwrap();
            file.sync().unwrap();
        }
        disk.crash();
        seen.insert(text(&disk.open("a").unwrap()));
    }
    assert_eq!(Vec::from_iter(seen), ["", "a", "ab"]);
}

#[test]
fn content_is_read_as_it_was_written_across_pages() {
    let mut chance = Chance::new(7);
    let (mut content, mut expected) = (Content::default(), Vec::new());
    for _ in 0..300 {
        let offset = chance.below(20_000);
        if chance.happens(100) {
            content.set_len(offset);
            expected.resize(usize::try_from(offset).unwrap(), 0);
            continue;
        }
        let byte = u8::try_from(chance.below(256)).unwrap();
        let data = vec![byte; usize::try_from(chance.below(9_000)).unwrap()];
        content.write(offset, &data);
        let (start, end) = (
            usize::try_from(offset).unwrap(),
            usize::try_from(offset).unwrap() + data.len(),
        );
        if !data.is_empty() || content.len() > expected.len() as u64 {
            expected.resize(expected.len().max(end), 0);
        }
        expected[start..end].copy_from_slice(&data);
        let mut read = vec![0; expected.len()];
        assert!(content.read(0, &mut read) && read == expected);
    }
}

#[test]
fn a_database_survives_crashes_at_any_operation() {
    const NUMBERS: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("numbers");
    use redb::ReadableDatabase as _;
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let disk = Disk::new(chance.fork());
        // A database that is being made does not survive a crash, so it is made under another name.
        drop(
            redb::Database::builder()
                .create_with_backend(disk.open("new").unwrap())
                .unwrap(),
        );
        disk.rename("new", "db").unwrap();
        disk.sync_names().unwrap();
        let (mut committed, mut attempted) = (0, 0);
        for _ in 0..10 {
            disk.die_after(chance.between(5, 120));
            let opened = redb::Database::builder().create_with_backend(disk.open("db").unwrap());
            if let Ok(database) = opened {
                loop {
                    attempted += 1;
                    let commit = || -> Result<(), redb::Error> {
                        let write = database.begin_write()?;
                        write.open_table(NUMBERS)?.insert(0, attempted)?;
                        write.commit()?;
                        Ok(())
                    };
                    match commit() {
                        Ok(()) => committed = attempted,
                        Err(_) => break,
                    }
                }
            }
            if chance.coin() {
                disk.crash()
            } else {
                disk.kill()
            }
            let database = redb::Database::builder()
                .create_with_backend(disk.open("db").unwrap())
                .unwrap();
            let read = database.begin_read().unwrap();
            let number = read
                .open_table(NUMBERS)
                .ok()
                .and_then(|table| table.get(0).unwrap())
                .map_or(0, |value| value.value());
            assert!(
                (committed..=attempted).contains(&number),
                "{seed}: {committed} {number}"
            );
            drop(read);
            drop(database);
            committed = number;
            disk.kill();
        }
    }
}
