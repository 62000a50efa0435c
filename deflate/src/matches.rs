//! What occurred before: the search for matches.
//!
//! The input passes through a ring of 64 KiB, so that a `u16` is a position and an index that needs no check, and that
//! the difference of two is a distance. A table has, for each hash of five bytes, where it was met last.

use crate::histogram::Histogram;
use crate::symbols::{LENGTH_SYMBOL, MAX_MATCH, distance_symbol};
use crate::token::{MIN_MATCH, RUN, Tokens};
use crate::{CHUNK, zeros};

/// The farthest that a match may reach back (RFC 1951, section 2).
const WINDOW: usize = 32 << 10;

const RING: usize = 1 << 16;

/// The ring's first bytes once more behind its end, so that what begins before the end is read at once: at most eight
/// bytes from a position on, then sixteen.
const MIRROR: usize = 8 + 16;

/// How much of the input enters the ring at a time, and how little ahead may be left of it. A divisor of [`RING`], so
/// that no copy goes over its end.
const FILL: usize = 16 << 10;
const LOW: usize = FILL / 2;

/// How far before the end of what is in the ring a step may begin: it looks at its second position and at what a match
/// there can have, in pieces of eight bytes.
const AHEAD: usize = 1 + MAX_MATCH.next_multiple_of(8);

// Once filled, the ring ends less than LOW + FILL bytes after the next step's position, so what lies a window before
// that is not yet overwritten; nor are the literals that no token has yet, which are of one chunk.
const _: () = assert!(RING.is_multiple_of(FILL) && LOW + FILL + WINDOW <= RING && CHUNK + MAX_MATCH <= WINDOW);
// What a filled ring has ahead is more than a step needs, and then more than a chunk.
const _: () = assert!(AHEAD < LOW && CHUNK + MAX_MATCH + AHEAD <= FILL);

/// The logarithm of how many hashes there are: the table, of 128 KiB, and the ring fit into a core's own cache.
const TABLE_LOG: u32 = 16;

/// Steps become longer by one position for each `1 << SKIP_LOG` bytes without a match: what is packed already is passed
/// over quickly.
const SKIP_LOG: u32 = 6;

// No step is longer than a match, so neither leads behind what is in the ring.
const _: () = assert!(2 + (CHUNK >> SKIP_LOG) < MAX_MATCH);

/// Positions of a match that are entered into the table: as many after the step's own two, and as many before its end.
/// The next matches often begin where these lie, and all of them would cost more than they find.
const ENTERED: u16 = 3;

// None lies behind the match.
const _: () = assert!(2 + ENTERED as usize <= MIN_MATCH);

/// Finds matches.
pub(crate) struct Finder {
    ring: Box<[u8; RING + MIRROR]>,
    /// The lowest bits of the last position of each hash. One that was met in no step is 0, the member's first byte.
    ///
    /// An entry that is older than the ring looks like one that is younger by a lap. That does no harm, since every
    /// candidate's bytes are compared: what is a window or less back is in the ring, whatever led there. Nor can
    /// anything lead to before the member's first byte, where the ring has zeros or another member's bytes: in its first
    /// 64 KiB every entry is a position itself, and none is later than the step, so none is farther back than there
    /// are bytes; and later there is more than a window of them.
    table: Box<[u16; 1 << TABLE_LOG]>,
    /// How much of the input went into the ring.
    filled: usize,
}

#[inline]
fn load<const N: usize>(ring: &[u8; RING + MIRROR], at: u16, offset: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&ring[usize::from(at) + offset..][..N]);
    bytes
}

#[inline]
fn word(ring: &[u8; RING + MIRROR], at: u16) -> u64 {
    u64::from_le_bytes(load(ring, at, 0))
}

/// Of the first five of eight bytes: the others are shifted out, and the product's highest bits depend on all five.
///
/// Two words with four bytes alike, but not the fifth, never have the same hash: the products differ by the difference
/// of the fifth times an odd number, in the highest eight bits. So a match of four bytes is met only by an entry that is
/// older than the ring, and is refused.
#[inline]
fn hash(word: u64) -> usize {
    // 2^64 over the golden ratio, and odd.
    const MULTIPLIER: u64 = 0x9e37_79b1_85eb_ca87;
    ((word << (64 - 8 * MIN_MATCH)).wrapping_mul(MULTIPLIER) >> (64 - TABLE_LOG)) as usize
}

/// How many bytes are alike at both positions, [`MAX_MATCH`] at most. Most matches end within 24 bytes.
#[inline]
fn length(ring: &[u8; RING + MIRROR], one: u16, other: u16) -> u32 {
    let difference = word(ring, one) ^ word(ring, other);
    if difference != 0 {
        return difference.trailing_zeros() / 8;
    }
    let difference = u128::from_le_bytes(load(ring, one, 8)) ^ u128::from_le_bytes(load(ring, other, 8));
    if difference != 0 {
        return 8 + difference.trailing_zeros() / 8;
    }
    let mut length = 24_u16;
    while usize::from(length) < MAX_MATCH {
        let difference = word(ring, one.wrapping_add(length)) ^ word(ring, other.wrapping_add(length));
        if difference != 0 {
            return (u32::from(length) + difference.trailing_zeros() / 8).min(MAX_MATCH as u32);
        }
        length += 8;
    }
    MAX_MATCH as u32
}

impl Finder {
    pub(crate) fn new() -> Self {
        Self { ring: zeros(), table: zeros(), filled: 0 }
    }

    /// Begins a member: nothing of another is known.
    pub(crate) fn clear(&mut self) {
        self.table.fill(0);
        self.filled = 0;
    }

    /// Searches `input` from `start` to `end`, or as far behind it as a match or a step goes that begins before, and
    /// says where that is. Calls follow each other over the whole input.
    pub(crate) fn search(
        &mut self,
        input: &[u8],
        start: usize,
        end: usize,
        tokens: &mut Tokens,
        histogram: &mut Histogram,
    ) -> usize {
        let mut at = start;
        while at < end {
            if self.filled < input.len() && self.filled - at < LOW {
                self.fill(input);
            }
            let limit = end.min(self.filled.saturating_sub(AHEAD));
            at = if at < limit {
                self.search_pairs(at, limit, tokens, histogram)
            } else {
                // Less than LOW is left in the ring: everything has gone into it.
                self.search_tail(input, at, end, tokens, histogram)
            };
        }
        at
    }

    fn fill(&mut self, input: &[u8]) {
        let more = &input[self.filled..];
        let more = &more[..more.len().min(FILL)];
        let place = self.filled % RING;
        self.ring[place..place + more.len()].copy_from_slice(more);
        if place == 0 {
            self.ring.copy_within(..MIRROR, RING);
        }
        self.filled += more.len();
    }

    /// Two neighbouring positions at a time: where both have a match, the second is taken if it is longer. That is nearly
    /// what a lazy search finds, which looks one position further after each match, without its hardly foreseeable
    /// branches.
    #[inline(never)]
    fn search_pairs(&mut self, start: usize, limit: usize, tokens: &mut Tokens, histogram: &mut Histogram) -> usize {
        let (ring, table) = (&*self.ring, &mut *self.table);
        let mut collector = tokens.collector();
        // Literals since here belong to no token yet.
        let (mut at, mut literals) = (start, start);
        while at < limit {
            let first = at as u16;
            let second = first.wrapping_add(1);
            let words = [word(ring, first), word(ring, second)];
            let hashes = words.map(hash);
            let candidates = hashes.map(|hash| table[hash]);
            table[hashes[0]] = first;
            table[hashes[1]] = second;
            let differences = [word(ring, candidates[0]) ^ words[0], word(ring, candidates[1]) ^ words[1]];
            // Four bytes alike, at either; one branch for both.
            let mut hit = differences[0] as u32 == 0;
            hit |= differences[1] as u32 == 0;
            if !hit {
                at += 2 + ((at - literals) >> SKIP_LOG);
                continue;
            }
            // Of eight bytes that are alike seven are seen here.
            let alike = differences.map(|difference| (difference | 1 << 63).trailing_zeros() / 8);
            let later = alike[1] > alike[0];
            let (candidate, position) = if later { (candidates[1], second) } else { (candidates[0], first) };
            let back = u32::from(position.wrapping_sub(candidate).wrapping_sub(1));
            let length = length(ring, position, candidate);
            // A position that begins a lap may be its own candidate, of a hash that was not met: that is a lap back.
            if back >= WINDOW as u32 || length < MIN_MATCH as u32 {
                at += 2;
                continue;
            }
            at += usize::from(later);
            while at - literals > RUN {
                collector.push_literals(&load(ring, literals as u16, 0), RUN);
                literals += RUN;
            }
            let symbol = distance_symbol(back);
            collector.push_match(&load(ring, literals as u16, 0), at - literals, length, symbol, back);
            histogram.distances[symbol as usize % 32] += 1;
            histogram.lengths[usize::from(LENGTH_SYMBOL[length as usize % 512]) % 32] += 1;
            at += length as usize;
            literals = at;
            let end = at as u16;
            for offset in 0..ENTERED {
                for position in [second.wrapping_add(1 + offset), end.wrapping_sub(1 + offset)] {
                    table[hash(word(ring, position))] = position;
                }
            }
        }
        while literals < at {
            let count = (at - literals).min(RUN);
            collector.push_literals(&load(ring, literals as u16, 0), count);
            literals += count;
        }
        let end = collector.finish();
        tokens.set_end(end);
        at
    }

    /// The last bytes of a member, one position at a time, where a word or a match may reach its end.
    fn search_tail(
        &mut self,
        input: &[u8],
        start: usize,
        end: usize,
        tokens: &mut Tokens,
        histogram: &mut Histogram,
    ) -> usize {
        let mut collector = tokens.collector();
        let (mut at, mut literals) = (start, start);
        while at < end {
            let Some((length, back)) = self.look_up(input, at) else {
                at += 1;
                continue;
            };
            let symbol = distance_symbol(back);
            collector.push(&input[literals..at], Some((length, symbol, back)));
            histogram.distances[symbol as usize] += 1;
            histogram.lengths[usize::from(LENGTH_SYMBOL[length as usize])] += 1;
            at += length as usize;
            literals = at;
        }
        collector.push(&input[literals..at], None);
        let end = collector.finish();
        tokens.set_end(end);
        at
    }

    /// The length of a match at `at`, and its distance less one. The position is entered into the table.
    fn look_up(&mut self, input: &[u8], at: usize) -> Option<(u32, u32)> {
        let here = &input[at..];
        let entry = &mut self.table[hash(u64::from_le_bytes(*here.first_chunk()?))];
        let back = (at as u16).wrapping_sub(*entry).wrapping_sub(1);
        *entry = at as u16;
        let distance = usize::from(back) + 1;
        let before = input.get(at.checked_sub(distance).filter(|_| distance <= WINDOW)?..)?;
        let length = here.iter().zip(before).take(MAX_MATCH).take_while(|(here, before)| here == before).count();
        (length >= MIN_MATCH).then_some((length as u32, back.into()))
    }
}
