//! The fuzz targets as a normal test: what the builders and the sample events give, with bytes changed, cut out and
//! repeated. Which changes is decided by a number, so a finding can be made again.

use std::path::Path;

use crate::rows;
use crate::targets;

/// Cases for each target, some seconds in all; `GANTRY_FUZZ_CASES` wants more.
const CASES: u64 = 2_000;

/// A sequence of numbers that look like chance (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// `seed` with a few changes.
fn mutated(seed: &[u8], chance: &mut Chance) -> Vec<u8> {
    const ODD: [&[u8]; 9] = [b"\0", b"\xff", b"..", b"/", b"7777777", b"null", b"{}", b"-1", b"sha256:"];
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = chance.below(bytes.len());
        let length = 1 + chance.below(700).min(bytes.len() - at - 1);
        match chance.below(7) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = u8::try_from(chance.below(256)).unwrap(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + length)),
            4 => {
                let part = bytes[at..at + length].to_vec();
                let to = chance.below(bytes.len());
                bytes.splice(to..to, part);
            }
            5 => {
                let odd = ODD[chance.below(ODD.len())];
                bytes.splice(at..at, odd.iter().copied());
            }
            _ => {
                let odd = ODD[chance.below(ODD.len())];
                let end = (at + odd.len()).min(bytes.len());
                bytes.splice(at..end, odd.iter().copied());
            }
        }
    }
    if chance.below(2) == 0 {
        mend(&mut bytes);
    }
    bytes
}

/// Makes the checksums of tar headers right again, so that what was changed in them is believed.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().copied().map(u32::from).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fn run(target: fn(&[u8]), seeds: &[Vec<u8>], cases: u64) {
    for seed in seeds {
        target(seed);
    }
    let more = std::env::vars().find(|(name, _)| name == "GANTRY_FUZZ_CASES");
    let cases = more.map_or(cases, |(_, cases)| cases.parse().unwrap());
    for case in 0..cases {
        let mut chance = Chance(case);
        let seed = &seeds[chance.below(seeds.len())];
        let bytes = mutated(seed, &mut chance);
        // The case is printed by whoever catches the panic.
        let caught = std::panic::catch_unwind(|| target(&bytes));
        assert!(caught.is_ok(), "case {case}");
    }
}

fn archives() -> Vec<Vec<u8>> {
    rows::rows().into_iter().map(|row| row.bytes).filter(|bytes| bytes.len() < 200_000).collect()
}

/// The JSON files of the built archives, each behind the byte that says what it is.
fn manifests() -> Vec<Vec<u8>> {
    const NAMES: [&str; 4] = ["index.json", "manifest.json", "repositories", "c.json"];
    let mut seeds = Vec::new();
    for bytes in archives() {
        let mut tar = tar::Archive::new(bytes.as_slice());
        for mut entry in tar.entries().into_iter().flatten().flatten() {
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = path.rsplit('/').next().unwrap_or_default();
            let which = NAMES.iter().position(|known| *known == name);
            let mut content = Vec::new();
            if std::io::Read::read_to_end(&mut entry, &mut content).is_ok() && content.starts_with(b"{")
                || which.is_some()
            {
                seeds.push([[u8::try_from(which.unwrap_or(0)).unwrap()].as_slice(), &content].concat());
            }
        }
    }
    seeds
}

fn names() -> Vec<Vec<u8>> {
    [
        "team/my-app/1.4.2.tar\n\nmy-app:1.4.2\nlatest",
        "all.tar\n\nregistry.example:5000/team/one:1\nteam/one:1.0\n--\nlibrary/two@sha256:00\n<none>:<none>",
        "team/x.tar\nteam/app:1.4.2,latest",
        "team/my-app.tar.gz\n\nmy-app:1",
        "Team/Ä b/..tar\nrival/app:1\n\n--\n--",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn events() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/in");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn any_change_to_an_archive_is_an_answer() {
    run(targets::archive, &archives(), CASES);
}

#[test]
fn any_change_to_a_manifest_is_an_answer() {
    run(targets::manifests, &manifests(), CASES);
}

#[test]
fn any_names_stay_in_their_folder() {
    run(targets::naming, &names(), 10 * CASES);
}

#[test]
fn any_change_to_an_event_is_an_answer() {
    run(targets::event, &events(), 10 * CASES);
}

/// Writes the corpus that `cargo fuzz` begins with, when it is asked to.
#[test]
fn seeds_are_written_for_longer_runs() {
    let wanted = std::env::vars_os().any(|(name, _)| name == "GANTRY_WRITE_CORPUS");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, seeds) in
        [("archive", archives()), ("manifests", manifests()), ("naming", names()), ("event", events())]
    {
        assert!(!seeds.is_empty(), "{target}");
        if wanted {
            std::fs::create_dir_all(folder.join(target)).unwrap();
            for (at, seed) in seeds.iter().enumerate() {
                std::fs::write(folder.join(target).join(format!("seed-{at}")), seed).unwrap();
            }
        }
    }
}
