//! Bits into bytes, from the least significant on (RFC 1951, section 3.1.1).

use crate::MOST_OF_A_BLOCK;

/// Room for a block, compressed. A block that would not be shorter than its bytes is stored, and does not pass through
/// here; so this is those bytes, what begins a block, and the eight bytes that are written at once.
pub(crate) const BUFFER: usize = MOST_OF_A_BLOCK + 64;

/// Collects bits, and the bytes of one block.
///
/// It is handed on by value, so that a loop that writes has its fields in registers.
pub(crate) struct BitWriter<'buffer> {
    buffer: &'buffer mut [u8; BUFFER],
    length: usize,
    /// Bits that are not yet whole bytes, and how many they are.
    bits: u64,
    count: u32,
}

impl<'buffer> BitWriter<'buffer> {
    pub(crate) fn new(buffer: &'buffer mut [u8; BUFFER]) -> Self {
        Self { buffer, length: 0, bits: 0, count: 0 }
    }

    /// Appends the `count` lowest bits of `value`, whose others are zero. No more than 63 may come together; `flush`
    /// leaves seven at most, so that there may be 56 between one `flush` and the next.
    #[inline]
    pub(crate) fn put(&mut self, value: u64, count: u32) {
        debug_assert!(self.count + count < 64 && value >> count == 0);
        self.bits |= value << self.count;
        self.count += count;
    }

    /// Moves whole bytes into the buffer: eight are written, whatever they hold, and only the whole ones are kept.
    #[inline]
    pub(crate) fn flush(&mut self) {
        self.buffer[self.length..][..8].copy_from_slice(&self.bits.to_le_bytes());
        self.length += (self.count / 8) as usize;
        self.bits >>= self.count & !7;
        self.count &= 7;
    }

    /// Fills the last byte up with zeros, and moves everything to `output`.
    pub(crate) fn align(&mut self, output: &mut Vec<u8>) {
        self.put(0, (8 - self.count % 8) % 8);
        self.flush();
        self.drain(output);
    }

    /// Moves whole bytes to `output`.
    pub(crate) fn drain(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(&self.buffer[..self.length]);
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_out_from_the_least_significant_on() {
        let mut buffer = crate::zeros();
        let mut output = Vec::new();
        let mut bits = BitWriter::new(&mut buffer);
        bits.put(0b101, 3);
        bits.flush();
        bits.put((1 << 56) - 1, 56);
        bits.flush();
        bits.put(0, 2);
        bits.align(&mut output);
        assert_eq!(output, [0b1111_1101, 255, 255, 255, 255, 255, 255, 0b0000_0111]);
        bits.align(&mut output);
        assert_eq!(output.len(), 8, "nothing is left");
    }
}
