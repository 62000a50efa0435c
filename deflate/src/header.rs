//! How the codes of a block are told (RFC 1951, section 3.2.7).

use crate::bits::BitWriter;
use crate::huffman::{self, Code};
use crate::symbols::{DISTANCES, FIRST_LENGTH, LITERALS_AND_LENGTHS};

/// Lengths of codes are symbols themselves; these three repeat: the last length, zero, and zero more often.
const SYMBOLS: usize = 19;
const REPEAT: u8 = 16;
const ZEROS: u8 = 17;
const MORE_ZEROS: u8 = 18;

/// The order in which their own codes' lengths are written, the likeliest first: zeros at the end are left out.
const ORDER: [usize; SYMBOLS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// At least as many are written.
const FEWEST: usize = 4;
/// Their longest code.
const LONGEST: usize = 7;

const MOST: usize = LITERALS_AND_LENGTHS + DISTANCES;

/// How many bits follow a symbol.
fn extra(symbol: u8) -> u32 {
    match symbol {
        REPEAT => 2,
        ZEROS => 3,
        MORE_ZEROS => 7,
        _ => 0,
    }
}

/// What is written before a block's symbols.
pub(crate) struct Header {
    /// How many codes of literals and lengths, and of distances, are told.
    literals: usize,
    distances: usize,
    /// Symbols, and what follows each.
    symbols: [(u8, u8); MOST],
    count: usize,
    /// The lengths of the symbols' own codes, and how many of them are written, in their order.
    lengths: [u8; SYMBOLS],
    written: usize,
    bits: u32,
}

impl Header {
    /// Of the lengths of so many codes, or fewer, as there are symbols.
    pub(crate) fn of(literals: &[u8], distances: &[u8]) -> Self {
        let until_last = |lengths: &[u8]| lengths.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1);
        let mut header = Self {
            literals: until_last(literals).max(FIRST_LENGTH),
            distances: until_last(distances),
            symbols: [(0, 0); MOST],
            count: 0,
            lengths: [0; SYMBOLS],
            written: FEWEST,
            bits: 0,
        };
        // Repetitions go from the one kind over to the other.
        let mut all = [0; MOST];
        let count = header.literals + header.distances;
        all[..header.literals].copy_from_slice(&literals[..header.literals]);
        all[header.literals..count].copy_from_slice(&distances[..header.distances]);
        for same in all[..count].chunk_by(|one, next| one == next) {
            header.push_same(same[0], same.len());
        }
        let mut counts = [0; SYMBOLS];
        for (symbol, _) in &header.symbols[..header.count] {
            counts[usize::from(*symbol)] += 1;
        }
        huffman::lengths(&counts, LONGEST, &mut header.lengths);
        let last = ORDER.iter().rposition(|symbol| header.lengths[*symbol] > 0);
        header.written = last.map_or(0, |last| last + 1).max(FEWEST);
        let symbols = (0..).zip(counts).zip(&header.lengths);
        let bits: u32 = symbols.map(|((symbol, count), &length)| count * (u32::from(length) + extra(symbol))).sum();
        header.bits = 3 + 5 + 5 + 4 + 3 * header.written as u32 + bits;
        header
    }

    /// The bits of the header, with the three that every block begins with.
    pub(crate) fn bits(&self) -> u32 {
        self.bits
    }

    fn push(&mut self, symbol: u8, more: usize) {
        self.symbols[self.count] = (symbol, more as u8);
        self.count += 1;
    }

    /// The same length so many times.
    fn push_same(&mut self, length: u8, mut count: usize) {
        if length > 0 {
            self.push(length, 0);
            count -= 1;
        }
        while count >= 3 {
            let (symbol, fewest, most) = match length {
                0 if count <= 10 => (ZEROS, 3, 10),
                0 => (MORE_ZEROS, 11, 138),
                _ => (REPEAT, 3, 6),
            };
            let now = count.min(most);
            self.push(symbol, now - fewest);
            count -= now;
        }
        for _ in 0..count {
            self.push(length, 0);
        }
    }

    /// Everything but the three bits that every block begins with.
    pub(crate) fn write(&self, bits: &mut BitWriter<'_>) {
        let mut codes = [Code::default(); SYMBOLS];
        huffman::codes(&self.lengths, &mut codes);
        bits.put((self.literals - FIRST_LENGTH) as u64, 5);
        bits.put((self.distances - 1) as u64, 5);
        bits.put((self.written - FEWEST) as u64, 4);
        bits.flush();
        for symbol in &ORDER[..self.written] {
            bits.put(self.lengths[*symbol].into(), 3);
            bits.flush();
        }
        for &(symbol, more) in &self.symbols[..self.count] {
            let code = codes[usize::from(symbol)];
            bits.put(code.bits.into(), code.length.into());
            bits.put(more.into(), extra(symbol));
            bits.flush();
        }
    }
}
