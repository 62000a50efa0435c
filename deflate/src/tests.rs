//! Every output is read by two decoders that were made by others.

use std::io::Read as _;

use proptest::prelude::*;

use super::*;

/// What both decoders agree on, within the bound on its size.
fn check(encoder: &mut Encoder, input: &[u8], what: &str) -> Result<(), TestCaseError> {
    // What is there already stays.
    let mut output = vec![7; 3];
    encoder.gzip(input, &mut output);
    prop_assert!(output.starts_with(&[7; 3]));
    let member = &output[3..];
    let (length, size) = (input.len(), member.len());
    let mut plain = vec![0; length];
    let found = libdeflater::Decompressor::new().gzip_decompress(member, &mut plain);
    prop_assert_eq!(found, Ok(length), "{} {}", what, length);
    prop_assert!(plain == input, "{what} {length}: libdeflate reads something else");
    plain.clear();
    let found = flate2::read::MultiGzDecoder::new(member).read_to_end(&mut plain);
    prop_assert!(found.is_ok() && plain == input, "{what} {length}: zlib-rs reads {found:?} or something else");
    prop_assert!(size <= 18 + length + 5 * length.div_ceil(65_535).max(1), "{what} {length}: {size}");
    let mut again = Vec::new();
    Encoder::new().gzip(input, &mut again);
    prop_assert!(again == member, "{what} {length}: what was compressed before makes a difference");
    Ok(())
}

/// Numbers without a pattern, the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Literals, and repetitions of up to 400 bytes from up to 70,000 back.
    fn repetitive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = self.bytes(20);
        while bytes.len() < length {
            if self.below(3) == 0 {
                let count = self.below(60);
                bytes.extend(self.bytes(count));
            } else {
                let distance = 1 + self.below(bytes.len().min(70_000));
                repeat(&mut bytes, distance, 1 + self.below(400));
            }
        }
        bytes.truncate(length);
        bytes
    }
}

fn repeat(bytes: &mut Vec<u8>, distance: usize, length: usize) {
    for _ in 0..length {
        bytes.push(bytes[bytes.len() - distance]);
    }
}

/// One encoder for all of them, so that each finds the ring as another left it.
#[test]
fn every_length_at_which_something_changes() {
    let mut encoder = Encoder::new();
    let mut numbers = Numbers(1);
    let edges = [8191, 8192, 8193, 16_383, 16_384, 16_385, 24_576, 32_767, 32_768, 32_769, 65_535, 65_536, 65_537];
    let more = [81_920, 131_070, 131_071, 131_072, 139_264, 139_523, 200_000, 1_048_576, 1_048_577];
    for length in (0..40).chain((40..700).step_by(7)).chain(250..270).chain(edges).chain(more) {
        let period = |period: usize| (0..length).map(|at| (at % period * 37) as u8).collect::<Vec<_>>();
        let mut inputs = vec![
            ("zeros", vec![0; length]),
            ("random", numbers.bytes(length)),
            ("three letters", (0..length).map(|_| b'a' + numbers.below(3) as u8).collect()),
            ("repetitive", numbers.repetitive(length)),
            ("deep codes", (0..length).map(|_| numbers.next().trailing_zeros() as u8).collect()),
            (
                "random and not, by turns",
                (0..length).map(|at| if at / 5000 % 2 == 0 { numbers.next() as u8 } else { (at % 11) as u8 }).collect(),
            ),
        ];
        if length < 100_000 {
            inputs.extend([2, 3, 5, 7, 258, 259, 4096, 32_768].map(|of| ("periodic", period(of))));
        }
        for (what, input) in inputs {
            check(&mut encoder, &input, what).unwrap();
        }
    }
}

/// What is repeated at the farthest distance is found, and one byte farther it is not.
#[test]
fn the_window_is_used_to_its_end_and_not_beyond() {
    // Random bytes, with zeros between them so that no position is passed over.
    let varied = |numbers: &mut Numbers, length: usize| {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            bytes.extend(numbers.bytes(40));
            bytes.resize(bytes.len() + 20, 0);
        }
        bytes.truncate(length);
        bytes
    };
    let mut encoder = Encoder::new();
    for start in [0, 1, 5000, 32_768, 40_000, 65_536, 100_000] {
        let [farthest, beyond] = [32_768, 32_769].map(|distance| {
            let mut numbers = Numbers(2);
            let mut input = varied(&mut numbers, start);
            let first = varied(&mut numbers, distance);
            input.extend_from_slice(&first);
            input.extend_from_slice(&first[..6000]);
            // Enough behind it that this is no tail.
            input.extend(varied(&mut numbers, 1000));
            check(&mut encoder, &input, "distance").unwrap();
            let mut output = Vec::new();
            encoder.gzip(&input, &mut output);
            output.len()
        });
        assert!(farthest + 3000 < beyond, "{start}: {farthest} {beyond}");
    }
}

/// What another member left in the ring, at any position of the window, is not there for the next.
#[test]
fn a_member_knows_nothing_of_the_one_before() {
    let mut encoder = Encoder::new();
    let shared = Numbers(4).repetitive(90_000);
    for start in [0, 1, 2, 7, 300, 8192, 20_000, 32_767, 32_768, 65_535] {
        for length in [10, 300, 5000, 20_000, 33_000] {
            let end = shared.len().min(start + length);
            check(&mut encoder, &shared[start..end], "shared").unwrap();
            check(&mut encoder, &shared, "shared").unwrap();
            check(&mut encoder, &shared[end - length.min(end)..end], "shared").unwrap();
        }
    }
}

/// The most tokens, and the most literals, that a block can have.
#[test]
fn nothing_that_a_block_is_made_of_becomes_too_many() {
    let mut encoder = Encoder::new();
    // Each five bytes are one of 4096 groups, in an order without a period: matches of five bytes, and no literals.
    let mut numbers = Numbers(5);
    let groups: Vec<_> = (0..4096).map(|_| numbers.bytes(5)).collect();
    let matches: Vec<u8> = (0..200_000).flat_map(|_| groups[numbers.below(4096)].clone()).collect();
    check(&mut encoder, &matches, "short matches").unwrap();
    // Each byte is as likely, but not random to a hash of five: literals that no block is ended for.
    check(&mut encoder, &numbers.bytes(1_000_000), "literals").unwrap();
}

#[derive(Debug, Clone)]
enum Piece {
    Literals(Vec<u8>),
    Repeat { distance: usize, length: usize },
    Run { byte: u8, length: usize },
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..600).prop_map(Piece::Literals),
        1 => prop::collection::vec(b'a'..b'e', 0..200).prop_map(Piece::Literals),
        6 => (1..70_000_usize, 1..400_usize).prop_map(|(distance, length)| Piece::Repeat { distance, length }),
        3 => (1..20_usize, 1..400_usize).prop_map(|(distance, length)| Piece::Repeat { distance, length }),
        1 => (any::<u8>(), 1..20_000_usize).prop_map(|(byte, length)| Piece::Run { byte, length }),
    ];
    prop::collection::vec(piece, 0..400)
}

fn assembled(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Literals(literals) => bytes.extend_from_slice(literals),
            Piece::Repeat { distance, length } if !bytes.is_empty() => {
                let distance = (*distance).min(bytes.len());
                repeat(&mut bytes, distance, *length);
            }
            Piece::Repeat { .. } => {}
            Piece::Run { byte, length } => bytes.resize(bytes.len() + length, *byte),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_goes_in_comes_out(members in prop::collection::vec(pieces(), 1..4)) {
        let mut encoder = Encoder::new();
        let (mut all, mut output) = (Vec::new(), Vec::new());
        for pieces in &members {
            let input = assembled(pieces);
            check(&mut encoder, &input, "assembled")?;
            encoder.gzip(&input, &mut output);
            all.extend_from_slice(&input);
        }
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(&output[..]).read_to_end(&mut plain)?;
        prop_assert!(plain == all);
    }
}
