//! What a block consists of: literals, and after some of them a match.

use crate::symbols::DISTANCES;
use crate::{CHUNK, MOST_OF_A_BLOCK};

/// The most literals in one token: what one copy of sixteen bytes can move.
pub(crate) const RUN: usize = 16;

/// The shortest match, so that every token that is not all literals stands for as many bytes.
pub(crate) const MIN_MATCH: usize = 5;

/// How often within a chunk literals may be ended where no match follows: a chunk is searched in two pieces at most,
/// since the ring holds another whole chunk after it is filled again, and a member's end is a third.
const PIECES: usize = 3;

/// Tokens of a block: one for each match, one for each sixteen literals, one for the rest of the literals of each piece.
const TOKENS: usize = 1 << 15;
const _: () = assert!(MOST_OF_A_BLOCK / MIN_MATCH + PIECES * (MOST_OF_A_BLOCK / CHUNK + 1) < TOKENS);

/// Literals of a block, and as many more as one copy may write too much.
const LITERALS: usize = MOST_OF_A_BLOCK + RUN;

/// The symbol of the distance of no match.
pub(crate) const NO_DISTANCE: u32 = DISTANCES as u32;

/// From 0 to [`RUN`] literals, and after them one match or none; in the bits
/// 0 to 7 the number of literals,
/// 8 to 23 the match's length, or 0,
/// 24 to 31 the symbol of its distance, or [`NO_DISTANCE`],
/// 32 to 47 that distance less one, or 0.
#[derive(Clone, Copy)]
pub(crate) struct Token(u64);

impl Token {
    /// Only literals.
    #[inline]
    fn literals_only(literals: usize) -> Self {
        Self::new(literals, 0, NO_DISTANCE, 0)
    }

    #[inline]
    fn new(literals: usize, length: u32, symbol: u32, back: u32) -> Self {
        Self(literals as u64 | u64::from(length << 8 | symbol << 24) | u64::from(back) << 32)
    }

    #[inline]
    pub(crate) fn literals(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// Less than 512, as the compiler sees.
    #[inline]
    pub(crate) fn length(self) -> usize {
        (self.0 >> 8 & 0x1ff) as usize
    }

    /// Less than 32, as the compiler sees.
    #[inline]
    pub(crate) fn symbol(self) -> usize {
        (self.0 >> 24 & 0x1f) as usize
    }

    #[inline]
    pub(crate) fn back(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The tokens and the literals of what is not written yet.
///
/// Neither array can become full, whatever the input: see [`TOKENS`] and [`LITERALS`]. If that were wrong, an index
/// out of bounds would end it, and not a wrong byte.
pub(crate) struct Tokens {
    all: Box<[Token]>,
    literals: Box<[u8]>,
    token_count: usize,
    literal_count: usize,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self {
            all: vec![Token(0); TOKENS].into(),
            literals: vec![0; LITERALS].into(),
            token_count: 0,
            literal_count: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        (self.token_count, self.literal_count) = (0, 0);
    }

    /// How many tokens and literals there are.
    pub(crate) fn end(&self) -> (usize, usize) {
        (self.token_count, self.literal_count)
    }

    /// The tokens up to `end`, and the literals, with [`RUN`] bytes more.
    pub(crate) fn until(&self, end: (usize, usize)) -> (&[Token], &[u8]) {
        (&self.all[..end.0], &self.literals[..end.1 + RUN])
    }

    /// The literals since `start`.
    pub(crate) fn literals_since(&self, start: (usize, usize)) -> &[u8] {
        &self.literals[start.1..self.literal_count]
    }

    /// Forgets what was before `start`.
    pub(crate) fn drop_until(&mut self, start: (usize, usize)) {
        self.all.copy_within(start.0..self.token_count, 0);
        self.literals.copy_within(start.1..self.literal_count, 0);
        self.token_count -= start.0;
        self.literal_count -= start.1;
    }

    /// Takes tokens, with both lengths at hand; see [`Collector::finish`].
    pub(crate) fn collector(&mut self) -> Collector<'_> {
        Collector {
            tokens: &mut self.all,
            literals: &mut self.literals,
            token_count: self.token_count,
            literal_count: self.literal_count,
        }
    }

    /// Sets what [`Collector::finish`] said.
    pub(crate) fn set_end(&mut self, end: (usize, usize)) {
        (self.token_count, self.literal_count) = end;
    }
}

/// Takes tokens while both lengths are in registers.
pub(crate) struct Collector<'tokens> {
    tokens: &'tokens mut [Token],
    literals: &'tokens mut [u8],
    token_count: usize,
    literal_count: usize,
}

impl Collector<'_> {
    /// Copies sixteen bytes and counts the first `count` of them as literals of the next token.
    #[inline]
    fn copy(&mut self, bytes: &[u8; RUN], count: usize) {
        self.literals[self.literal_count..][..RUN].copy_from_slice(bytes);
        self.literal_count += count;
    }

    #[inline]
    fn push_token(&mut self, token: Token) {
        self.tokens[self.token_count] = token;
        self.token_count += 1;
    }

    /// The first `count` of sixteen bytes, and no match.
    #[inline]
    pub(crate) fn push_literals(&mut self, bytes: &[u8; RUN], count: usize) {
        self.copy(bytes, count);
        self.push_token(Token::literals_only(count));
    }

    /// The first `count` of sixteen bytes, and a match of `length` at `back` + 1, which has that `symbol`.
    #[inline]
    pub(crate) fn push_match(&mut self, bytes: &[u8; RUN], count: usize, length: u32, symbol: u32, back: u32) {
        self.copy(bytes, count);
        self.push_token(Token::new(count, length, symbol, back));
    }

    /// Any number of literals, and after them a match, if there is one: its length, the symbol of its distance, and that
    /// distance less one.
    pub(crate) fn push(&mut self, literals: &[u8], matched: Option<(u32, u32, u32)>) {
        let (runs, rest) = literals.as_chunks();
        for run in runs {
            self.push_literals(run, RUN);
        }
        let mut last = [0; RUN];
        last[..rest.len()].copy_from_slice(rest);
        match matched {
            Some((length, symbol, back)) => self.push_match(&last, rest.len(), length, symbol, back),
            None if rest.is_empty() => {}
            None => self.push_literals(&last, rest.len()),
        }
    }

    /// How many tokens and literals there are now.
    pub(crate) fn finish(self) -> (usize, usize) {
        (self.token_count, self.literal_count)
    }
}
