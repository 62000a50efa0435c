//! What lengths and distances are called (RFC 1951, section 3.2.5).

/// The longest match.
pub(crate) const MAX_MATCH: usize = 258;

/// The symbol that ends a block, and the one of the shortest match.
pub(crate) const END_OF_BLOCK: usize = 256;
pub(crate) const FIRST_LENGTH: usize = 257;

/// Symbols of literals, the end, and lengths; of lengths; of distances.
pub(crate) const LITERALS_AND_LENGTHS: usize = 286;
pub(crate) const LENGTHS: usize = 29;
pub(crate) const DISTANCES: usize = 30;

/// The first of those, with two more that never occur, but have codes among the fixed ones.
pub(crate) const FIXED_LITERALS_AND_LENGTHS: usize = 288;

/// The shortest length of each symbol, counted from the first one.
pub(crate) const LENGTH_BASE: [u16; LENGTHS] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];

/// How many bits follow each, which say by how much the length is longer.
pub(crate) const LENGTH_EXTRA: [u8; LENGTHS] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

/// The symbol of each length, counted from the first one.
pub(crate) const LENGTH_SYMBOL: [u8; MAX_MATCH + 1] = {
    let mut symbols = [0; MAX_MATCH + 1];
    let mut symbol: u8 = 0;
    while (symbol as usize) < LENGTHS {
        // A later symbol, which begins higher, takes from here what is its own.
        let mut length = LENGTH_BASE[symbol as usize] as usize;
        while length <= MAX_MATCH {
            symbols[length] = symbol;
            length += 1;
        }
        symbol += 1;
    }
    symbols
};

/// The symbol of a distance, given as `back`, which is one less: twice the place of its highest bit, and the bit below.
#[inline]
pub(crate) fn distance_symbol(back: u32) -> u32 {
    let highest = (back | 1).ilog2();
    if back < 2 { back } else { 2 * highest + ((back >> (highest - 1)) & 1) }
}

/// How many bits follow a symbol of a distance.
#[inline]
pub(crate) fn distance_extra(symbol: u32) -> u32 {
    (symbol / 2).saturating_sub(1)
}

/// The shortest distance of a symbol, less one.
#[inline]
pub(crate) fn distance_base(symbol: u32) -> u32 {
    if symbol < 2 { symbol } else { (2 + symbol % 2) << distance_extra(symbol) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_distance_is_its_symbol_s_base_and_what_fits_behind() {
        for (length, &symbol) in LENGTH_SYMBOL.iter().enumerate().skip(3) {
            let symbol = usize::from(symbol);
            let more = length - usize::from(LENGTH_BASE[symbol]);
            assert!(more < 1 << LENGTH_EXTRA[symbol], "{length}");
        }
        // 258 could be 227 and 31 more, and has a symbol of its own.
        assert_eq!(LENGTH_SYMBOL[MAX_MATCH], 28);
        let mut symbols = Vec::new();
        for back in 0..32_768 {
            let symbol = distance_symbol(back);
            assert!((back - distance_base(symbol)) >> distance_extra(symbol) == 0, "{back}");
            symbols.push(symbol);
        }
        assert!(symbols.is_sorted());
        symbols.dedup();
        assert_eq!(symbols, (0..30).collect::<Vec<_>>());
        // The last lines of the table in the RFC.
        assert_eq!((distance_base(29) + 1, distance_extra(29)), (24_577, 13));
    }
}
