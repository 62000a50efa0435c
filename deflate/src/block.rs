//! One block: which of the three kinds it becomes, and its bits (RFC 1951, section 3.2.3).

use crate::bits::BitWriter;
use crate::header::Header;
use crate::histogram::Histogram;
use crate::huffman::{self, Code};
use crate::symbols::{
    DISTANCES, END_OF_BLOCK, FIRST_LENGTH, FIXED_LITERALS_AND_LENGTHS, LENGTH_BASE, LENGTH_EXTRA, LENGTH_SYMBOL,
    LITERALS_AND_LENGTHS, distance_base, distance_extra,
};
use crate::token::{RUN, Token};

/// The longest codes of literals and lengths that are made. The format allows 15; of 14 bits four fit behind the seven
/// that may be left, and one bit of 64 is free.
const LONGEST_LITERAL: usize = 14;
const LONGEST_DISTANCE: usize = 15;

// What is put between one flush and the next: four literals, or a length and a distance with the bits that follow them.
const _: () = assert!(LONGEST_LITERAL <= huffman::LONGEST && LONGEST_DISTANCE <= huffman::LONGEST);
const _: () = assert!(7 + 4 * LONGEST_LITERAL < 64 && 7 + (LONGEST_LITERAL + 5) + (LONGEST_DISTANCE + 13) < 64);

/// Literals that are written together.
const TOGETHER: usize = 4;

/// With as many tokens a block's own codes save more than their header costs.
const TOO_MANY_FOR_FIXED: usize = 1000;

/// The most bytes of a stored block (RFC 1951, section 3.2.4), and how many are before them if it begins a byte.
pub(crate) const MOST_STORED: usize = 65_535;
pub(crate) const STORED_HEADER: usize = 5;

/// What is to be written.
pub(crate) struct Block<'parts> {
    pub(crate) tokens: &'parts [Token],
    /// The literals of the tokens, and [`RUN`] bytes more.
    pub(crate) literals: &'parts [u8],
    /// The bytes that they all stand for.
    pub(crate) bytes: &'parts [u8],
    pub(crate) histogram: &'parts Histogram,
    pub(crate) last: bool,
}

/// The lengths of the codes.
struct Lengths {
    literals: [u8; FIXED_LITERALS_AND_LENGTHS],
    distances: [u8; DISTANCES],
}

impl Lengths {
    /// As short as the symbols are frequent.
    fn of(literals: &[u32], distances: &[u32]) -> Self {
        let mut lengths = Self { literals: [0; FIXED_LITERALS_AND_LENGTHS], distances: [0; DISTANCES] };
        huffman::lengths(literals, LONGEST_LITERAL, &mut lengths.literals[..LITERALS_AND_LENGTHS]);
        huffman::lengths(distances, LONGEST_DISTANCE, &mut lengths.distances);
        lengths
    }

    /// RFC 1951, section 3.2.6.
    fn fixed() -> Self {
        let mut literals = [8; FIXED_LITERALS_AND_LENGTHS];
        literals[144..END_OF_BLOCK].fill(9);
        literals[END_OF_BLOCK..280].fill(7);
        Self { literals, distances: [5; DISTANCES] }
    }

    /// How many bits so many symbols have, with those that follow them.
    fn bits(&self, literals: &[u32], distances: &[u32]) -> u32 {
        let extra = std::iter::repeat_n(0, FIRST_LENGTH).chain(LENGTH_EXTRA.map(u32::from));
        let literals = literals.iter().zip(&self.literals).zip(extra);
        let distances = distances.iter().zip(&self.distances).zip((0..).map(distance_extra));
        literals.map(|((count, &length), extra)| count * (u32::from(length) + extra)).sum::<u32>()
            + distances.map(|((count, &length), extra)| count * (u32::from(length) + extra)).sum::<u32>()
    }
}

impl Block<'_> {
    /// Writes the block as whatever is shortest, and moves whole bytes to `output`.
    pub(crate) fn write<'buffer>(&self, mut bits: BitWriter<'buffer>, output: &mut Vec<u8>) -> BitWriter<'buffer> {
        let literals = self.histogram.literals_and_lengths();
        let distances = &self.histogram.distances[..DISTANCES];
        let own = Lengths::of(&literals, distances);
        let header = Header::of(&own.literals[..LITERALS_AND_LENGTHS], &own.distances);
        let own_bits = header.bits() + own.bits(&literals, distances);
        let stored_bits = 8 * (self.bytes.len() + STORED_HEADER) as u32;
        let fixed = (self.tokens.len() < TOO_MANY_FOR_FIXED).then(Lengths::fixed);
        let fixed = fixed.filter(|fixed| fixed.bits(&literals, distances) <= own_bits.min(stored_bits));
        if let Some(fixed) = fixed {
            bits.put(self.last.into(), 1);
            bits.put(1, 2);
            bits.flush();
            bits = self.symbols(bits, &fixed);
        } else if own_bits < stored_bits {
            bits.put(self.last.into(), 1);
            bits.put(2, 2);
            header.write(&mut bits);
            bits = self.symbols(bits, &own);
        } else {
            let mut pieces = self.bytes.chunks(MOST_STORED).peekable();
            while let Some(piece) = pieces.next() {
                bits.put((self.last && pieces.peek().is_none()).into(), 3);
                bits.align(output);
                store(piece, output);
            }
        }
        bits.drain(output);
        bits
    }

    /// The tokens and the end, in those codes.
    #[inline(never)]
    fn symbols<'buffer>(&self, mut bits: BitWriter<'buffer>, lengths: &Lengths) -> BitWriter<'buffer> {
        let codes = Codes::of(lengths);
        let mut literals = self.literals;
        for &token in self.tokens {
            let count = token.literals();
            let (now, _) = literals.split_at(RUN);
            let mut fours = now.chunks_exact(TOGETHER);
            let mut left = count;
            // One for sure: most tokens have four literals at most, and none costs no branch.
            loop {
                if let Some(&[a, b, c, d]) = fours.next() {
                    codes.put_literals(&mut bits, [a, b, c, d], left);
                }
                if left <= TOGETHER {
                    break;
                }
                left -= TOGETHER;
            }
            literals = &literals[count..];
            codes.put_match(&mut bits, token);
        }
        let end = codes.literals[END_OF_BLOCK];
        bits.put(u64::from(end.bits), end.length.into());
        bits.flush();
        bits
    }
}

/// A stored block's length, twice, and its bytes; after its three bits and those that fill the byte up.
pub(crate) fn store(piece: &[u8], output: &mut Vec<u8>) {
    let length = piece.len() as u16;
    output.extend_from_slice(&length.to_le_bytes());
    output.extend_from_slice(&(!length).to_le_bytes());
    output.extend_from_slice(piece);
}

/// The code of a length and the bits that follow it, and how many all those are; nothing for no match.
#[derive(Clone, Copy, Default)]
struct LengthCode {
    bits: u32,
    count: u32,
}

/// The code of a distance; `bits` is the code itself, less what the symbol's shortest distance adds.
#[derive(Clone, Copy, Default)]
struct DistanceCode {
    bits: u32,
    /// How many bits the code has, and how many with those that follow it.
    code_count: u16,
    count: u16,
}

/// What a block's symbols are written as.
struct Codes {
    literals: [Code; FIXED_LITERALS_AND_LENGTHS],
    /// One for each length, as many as a token's can be for all the compiler sees.
    lengths: [LengthCode; 512],
    /// One for each symbol, and nothing for that of no match.
    distances: [DistanceCode; 32],
}

impl Codes {
    fn of(lengths: &Lengths) -> Self {
        let mut codes = Self {
            literals: [Code::default(); FIXED_LITERALS_AND_LENGTHS],
            lengths: [LengthCode::default(); 512],
            distances: [DistanceCode::default(); 32],
        };
        huffman::codes(&lengths.literals, &mut codes.literals);
        let symbols = (0_u16..).zip(LENGTH_SYMBOL).zip(&mut codes.lengths).skip(usize::from(LENGTH_BASE[0]));
        for ((match_length, symbol), entry) in symbols {
            let symbol = usize::from(symbol);
            let code = codes.literals[FIRST_LENGTH + symbol];
            let more = u32::from(match_length - LENGTH_BASE[symbol]);
            *entry = LengthCode {
                bits: u32::from(code.bits) | more << code.length,
                count: u32::from(code.length) + u32::from(LENGTH_EXTRA[symbol]),
            };
        }
        let mut distances = [Code::default(); DISTANCES];
        huffman::codes(&lengths.distances, &mut distances);
        for ((symbol, entry), code) in (0..).zip(&mut codes.distances).zip(distances) {
            *entry = DistanceCode {
                bits: u32::from(code.bits).wrapping_sub(distance_base(symbol) << code.length),
                code_count: code.length,
                count: code.length + distance_extra(symbol) as u16,
            };
        }
        codes
    }

    /// The first `count` of four literals, or all of them: the others' bits are masked out, which is no branch.
    #[inline]
    fn put_literals(&self, bits: &mut BitWriter<'_>, four: [u8; TOGETHER], count: usize) {
        const MASKS: [[u16; TOGETHER]; TOGETHER + 1] =
            [[0; 4], [!0, 0, 0, 0], [!0, !0, 0, 0], [!0, !0, !0, 0], [!0; 4]];
        let masks = &MASKS[count.min(TOGETHER)];
        let [a, b, c, d] = std::array::from_fn(|at| {
            let code = self.literals[usize::from(four[at])];
            (u64::from(code.bits & masks[at]), u32::from(code.length & masks[at]))
        });
        // In pairs, so that fewer shifts wait for each other.
        let (ab, cd) = (a.0 | b.0 << a.1, c.0 | d.0 << c.1);
        bits.put(ab | cd << (a.1 + b.1), a.1 + b.1 + c.1 + d.1);
        bits.flush();
    }

    /// The token's match; no bits, if it has none.
    #[inline]
    fn put_match(&self, bits: &mut BitWriter<'_>, token: Token) {
        let length = self.lengths[token.length()];
        let distance = self.distances[token.symbol()];
        // Less than 2^15, and moved by no more than 15.
        let back = token.back() << (distance.code_count & 31);
        let code = u64::from(distance.bits.wrapping_add(back));
        bits.put(u64::from(length.bits) | code << length.count, length.count + u32::from(distance.count));
        bits.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::distance_symbol;
    use crate::token::Tokens;

    /// Codes of distances as long as they can be, which no input has by chance; of the same byte, everywhere, a match at
    /// any distance is true.
    #[test]
    fn the_longest_codes_are_read_back() {
        let mut tokens = Tokens::new();
        let mut histogram = Histogram::new();
        let mut collector = tokens.collector();
        let mut length = 32 << 10;
        collector.push(&vec![b'a'; length], None);
        histogram.literals[usize::from(b'a')] = 32 << 10;
        let (mut count, mut next) = (1, 1);
        for symbol in (10..30).rev() {
            for _ in 0..count {
                // The longest distance, with all the bits that follow its symbol.
                let back = distance_base(symbol) + (1 << distance_extra(symbol)) - 1;
                assert_eq!(distance_symbol(back), symbol);
                collector.push(&[], Some((5, symbol, back)));
                length += 5;
            }
            histogram.distances[symbol as usize] = count;
            histogram.lengths[usize::from(LENGTH_SYMBOL[5])] += count;
            (count, next) = (next, count + next);
        }
        let end = collector.finish();
        tokens.set_end(end);
        let (tokens, literals) = tokens.until(end);
        let longest = Lengths::of(&histogram.literals_and_lengths(), &histogram.distances[..DISTANCES]);
        assert!(longest.distances.contains(&15));
        let bytes = vec![b'a'; length];
        let mut output = Vec::new();
        let mut buffer = crate::zeros();
        let block = Block { tokens, literals, bytes: &bytes, histogram: &histogram, last: true };
        block.write(BitWriter::new(&mut buffer), &mut output).align(&mut output);
        let mut plain = vec![0; length];
        assert_eq!(libdeflater::Decompressor::new().deflate_decompress(&output, &mut plain), Ok(length));
        assert!(plain == bytes);
    }
}
