//! Codes as short as their symbols are frequent, within limits (RFC 1951, section 3.2.2).

use crate::symbols::LITERALS_AND_LENGTHS;

/// The longest code that the format knows.
pub(crate) const LONGEST: usize = 15;

/// A code as it is written, from its first bit in the lowest place on, and how many bits it has.
#[derive(Clone, Copy, Default)]
pub(crate) struct Code {
    pub(crate) bits: u16,
    pub(crate) length: u16,
}

/// Sets the length of each symbol's code, none longer than `longest`; 0 for a symbol that does not occur.
///
/// There are as many symbols as `counts` has, 286 at most, and less than two to the power of `longest`. The code
/// is complete: where fewer than two occur, two have one bit, since there are decoders that take nothing less.
pub(crate) fn lengths(counts: &[u32], longest: usize, lengths: &mut [u8]) {
    const SYMBOL_BITS: u32 = 9;
    lengths.fill(0);
    // The number of occurrences, less than 2^18, and the symbol; sorted, the rarest first.
    let mut sorted = [0; LITERALS_AND_LENGTHS];
    let mut used = 0;
    for (symbol, &count) in (0_u32..).zip(counts) {
        if count > 0 {
            sorted[used] = count << SYMBOL_BITS | symbol;
            used += 1;
        }
    }
    let sorted = &mut sorted[..used];
    sorted.sort_unstable();
    let symbol = |entry: u32| (entry % (1 << SYMBOL_BITS)) as usize;
    if let [] | [_] = sorted {
        let only = sorted.first().map_or(0, |&entry| symbol(entry));
        lengths[only] = 1;
        lengths[usize::from(only == 0)] = 1;
        return;
    }
    let mut nodes = [0; LITERALS_AND_LENGTHS];
    let nodes = &mut nodes[..used];
    nodes.iter_mut().zip(&*sorted).for_each(|(node, entry)| *node = entry >> SYMBOL_BITS);
    depths(nodes);

    // A tree begins with two leaves. Each other inner node makes one leaf of its depth into two below, the highest node
    // first; where those would be too deep, the deepest leaf that may have some. So the tree is whole after each, and
    // there always is such a leaf, since a whole tree without would have two to the power of `longest` leaves.
    let mut leaves = [0_u32; LONGEST + 1];
    leaves[1] = 2;
    for &depth in nodes[..used - 2].iter().rev() {
        let mut depth = (depth as usize).min(longest - 1);
        while leaves[depth] == 0 {
            depth -= 1;
        }
        leaves[depth] -= 1;
        leaves[depth + 1] += 2;
    }
    let mut entries = sorted.iter();
    for (length, &leaves) in (0_u8..16).zip(&leaves).rev() {
        for &entry in entries.by_ref().take(leaves as usize) {
            lengths[symbol(entry)] = length;
        }
    }
}

/// Turns the weights of at least two leaves, in rising order, into the depths of the inner nodes, in falling order; they
/// are one less, and the last number means nothing.
///
/// In place, after Moffat and Katajainen, "In-place calculation of minimum-redundancy codes" (1995). Weights add up to
/// less than 2^18, so no sum overflows.
fn depths(nodes: &mut [u32]) {
    let count = nodes.len();
    // `nodes[..inner]` that were joined already hold their parent's index, the others before `next` their weight.
    let (mut inner, mut leaf) = (0, 0);
    for next in 0..count - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if leaf >= count || (inner < next && nodes[inner] < nodes[leaf]) {
                weight += nodes[inner];
                nodes[inner] = u32::try_from(next).unwrap_or_default();
                inner += 1;
            } else {
                weight += nodes[leaf];
                leaf += 1;
            }
        }
        nodes[next] = weight;
    }
    nodes[count - 2] = 0;
    for node in (0..count - 2).rev() {
        nodes[node] = nodes[nodes[node] as usize] + 1;
    }
}

/// The codes of those lengths: of each length in the order of the symbols, each length after the one before.
pub(crate) fn codes(lengths: &[u8], codes: &mut [Code]) {
    let mut count = [0_u16; LONGEST + 1];
    for &length in lengths.iter().filter(|length| **length > 0) {
        count[usize::from(length)] += 1;
    }
    let mut next = [0_u16; LONGEST + 1];
    for length in 1..=LONGEST {
        next[length] = (next[length - 1] + count[length - 1]) << 1;
    }
    for (code, &length) in codes.iter_mut().zip(lengths) {
        let next = &mut next[usize::from(length)];
        // Codes are written from their highest bit on, everything else from its lowest.
        *code = match length {
            0 => Code::default(),
            _ => Code { bits: next.reverse_bits() >> (16 - length), length: length.into() },
        };
        *next += u16::from(length > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of counts that grow like Fibonacci's numbers each symbol's code is a bit longer than the next.
    fn fibonacci(count: usize) -> Vec<u32> {
        std::iter::successors(Some((1, 1)), |(a, b)| Some((*b, a + b))).map(|(a, _)| a).take(count).collect()
    }

    #[test]
    fn codes_are_complete_within_their_limit_and_shorter_for_the_frequent() {
        let table = [
            (vec![1, 1], 7),
            (vec![5, 0, 0, 3, 1], 7),
            (fibonacci(19), 7),
            (fibonacci(24), 14),
            (fibonacci(24), 15),
            (vec![1; 286], 14),
            ((1..=286).collect(), 14),
            ((0..286).map(|symbol| 1 << (symbol % 12)).collect(), 14),
        ];
        for (counts, longest) in table {
            let mut found = vec![99; counts.len()];
            lengths(&counts, longest, &mut found);
            let kraft: usize =
                found.iter().filter(|length| **length > 0).map(|length| 1 << (longest - usize::from(*length))).sum();
            assert_eq!(kraft, 1 << longest, "{counts:?} {found:?}");
            let mut both: Vec<_> = counts.iter().zip(&found).filter(|(count, _)| **count > 0).collect();
            assert!(counts.iter().zip(&found).all(|(count, length)| (*count == 0) == (*length == 0)));
            both.sort_unstable_by_key(|(count, length)| (**count, std::cmp::Reverse(**length)));
            assert!(both.is_sorted_by_key(|(_, length)| std::cmp::Reverse(**length)), "{counts:?} {found:?}");
        }
    }

    #[test]
    fn without_need_of_a_limit_codes_are_the_best_there_are() {
        let mut found = [0; 6];
        lengths(&[45, 13, 12, 16, 9, 5], 15, &mut found);
        assert_eq!(found, [1, 3, 3, 3, 4, 4]);
        lengths(&[0, 0, 7, 0, 0, 0], 15, &mut found);
        assert_eq!(found, [1, 0, 1, 0, 0, 0]);
        lengths(&[0; 6], 15, &mut found);
        assert_eq!(found, [1, 1, 0, 0, 0, 0]);
    }

    /// The example in RFC 1951, section 3.2.2.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let mut found = [Code::default(); 8];
        codes(&[3, 3, 3, 3, 3, 2, 4, 4], &mut found);
        let text = found.map(|code| {
            (0..code.length).map(|bit| if code.bits >> bit & 1 == 1 { '1' } else { '0' }).collect::<String>()
        });
        assert_eq!(text, ["010", "011", "100", "101", "110", "00", "1110", "1111"]);
    }
}
