//! How often each symbol occurs, what that costs, and where a block had better end.

use crate::symbols::{DISTANCES, END_OF_BLOCK, FIRST_LENGTH, LENGTHS, LITERALS_AND_LENGTHS};

/// Bits that a block of its own has to save: what its header costs, nearly.
const WORTH_A_BLOCK: u32 = 1000;

/// Parts of a bit that costs are counted in.
const PARTS: u32 = 16;

/// The logarithms below which are in a table.
const TABLED: usize = 1024;

/// n log2 n, in sixteenths of a bit.
const N_LOG_N: [u32; TABLED] = {
    let mut table = [0; TABLED];
    let mut n = 2_usize;
    while n < TABLED {
        // Eight binary digits behind the point, one for each squaring of what is left above a power of two.
        let mut log = n.ilog2() as u64;
        let mut mantissa = (n as u64) << 32 >> log;
        let mut digit = 0;
        while digit < 8 {
            mantissa = ((mantissa as u128 * mantissa as u128) >> 32) as u64;
            log <<= 1;
            if mantissa >> 33 > 0 {
                mantissa >>= 1;
                log |= 1;
            }
            digit += 1;
        }
        table[n] = ((n as u64 * log) >> 4) as u32;
        n += 1;
    }
    table
};

/// n log2 n in sixteenths of a bit. Above the table the ten highest bits of n count; so it grows less evenly there,
/// by a thousandth, which is less than what the entropy says too little.
fn n_log_n(n: u32) -> u32 {
    let shift = 22_u32.saturating_sub(n.leading_zeros());
    (N_LOG_N[(n >> shift) as usize % TABLED] << shift) + n * shift * PARTS
}

/// How often each symbol occurs. What is longer than there are symbols makes indices that need no check.
#[derive(Clone)]
pub(crate) struct Histogram {
    pub(crate) literals: [u32; 256],
    pub(crate) lengths: [u32; 32],
    pub(crate) distances: [u32; 32],
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { literals: [0; 256], lengths: [0; 32], distances: [0; 32] }
    }

    /// Counts literals: into four tables by turns, since adding to one number twice takes as long as adding to four.
    #[inline(never)]
    pub(crate) fn count_literals(&mut self, literals: &[u8]) {
        let mut turns = [[0_u32; 256]; 4];
        let (fours, rest) = literals.as_chunks::<4>();
        for four in fours {
            for (turn, &literal) in turns.iter_mut().zip(four) {
                turn[usize::from(literal)] += 1;
            }
        }
        for &literal in rest {
            turns[0][usize::from(literal)] += 1;
        }
        for (literal, count) in self.literals.iter_mut().enumerate() {
            *count += turns.iter().map(|turn| turn[literal]).sum::<u32>();
        }
    }

    /// Of each literal, of the end, which is there once, and of each length.
    pub(crate) fn literals_and_lengths(&self) -> [u32; LITERALS_AND_LENGTHS] {
        let mut counts = [0; LITERALS_AND_LENGTHS];
        counts[..END_OF_BLOCK].copy_from_slice(&self.literals);
        counts[END_OF_BLOCK] = 1;
        counts[FIRST_LENGTH..].copy_from_slice(&self.lengths[..LENGTHS]);
        counts
    }

    fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        let of_sum = [&mut sum.literals[..], &mut sum.lengths, &mut sum.distances];
        for (into, from) in of_sum.into_iter().zip([&other.literals[..], &other.lengths, &other.distances]) {
            into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
        }
        sum
    }

    /// The bits of all symbols by their entropy, which is less than any code can do.
    ///
    /// A block has less than 2^18 symbols, whose n log n is less than 2^27 here.
    fn bits(&self) -> u32 {
        let (mut symbols, mut alone) = (0, 0);
        for &count in self.literals.iter().chain(&self.lengths) {
            symbols += count;
            alone += n_log_n(count);
        }
        let (mut matches, mut alone_matches) = (0, 0);
        for &count in &self.distances[..DISTANCES] {
            matches += count;
            alone_matches += n_log_n(count);
        }
        (n_log_n(symbols).saturating_sub(alone) + n_log_n(matches).saturating_sub(alone_matches)) / PARTS
    }
}

/// A histogram and what its symbols cost.
pub(crate) struct Costed {
    pub(crate) histogram: Histogram,
    bits: u32,
}

impl From<Histogram> for Costed {
    fn from(histogram: Histogram) -> Self {
        let bits = histogram.bits();
        Self { histogram, bits }
    }
}

impl Costed {
    /// Both as one block, unless two are worth their headers.
    pub(crate) fn joined(&self, next: &Self) -> Option<Self> {
        let both = Self::from(self.histogram.plus(&next.histogram));
        (both.bits <= self.bits + next.bits + WORTH_A_BLOCK).then_some(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_are_near_the_true_ones() {
        for n in (0..5000).chain([139_523, 200_000, (1 << 18) - 1]) {
            let exact = f64::from(n) * f64::from(n.max(1)).log2();
            let found = f64::from(n_log_n(n)) / f64::from(PARTS);
            assert!((found - exact).abs() <= 1.0 + exact / 200.0, "{n}: {found} {exact}");
        }
        let mut even = Histogram::new();
        even.count_literals(&(0..=255).collect::<Vec<u8>>().repeat(4));
        assert_eq!(even.bits(), 256 * 4 * 8);
    }

    #[test]
    fn what_differs_becomes_two_blocks() {
        let of = |literals: &[u8]| {
            let mut histogram = Histogram::new();
            histogram.count_literals(&literals.repeat(1000));
            Costed::from(histogram)
        };
        assert!(of(b"abc").joined(&of(b"xyz")).is_none());
        assert!(of(b"abc").joined(&of(b"cab")).is_some());
    }
}
