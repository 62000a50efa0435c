//! One member of a compressed layer: a gzip member or a zstd frame, made from its bytes alone.

use std::io;

use bytes::Bytes;
use libdeflater::CompressionLvl;
use zstd::zstd_safe::{CParameter, Strategy};

use crate::config::Compression;
use crate::limits;

/// Pieces that the gain of level 2 is guessed from, and their length: a sixty-fourth of a member, from its beginning and
/// from its middle. Twice as many, or as long, guess better by less than the time they cost.
const PROBES: usize = 2;
const PROBE_BYTES: usize = 8 << 10;

/// What libdeflate's level 2 must save of what `deflate` makes of those pieces, in thousandths, for it to be taken where
/// level 1 was asked for.
///
/// Level 2 takes 80% longer everywhere, and saves from nothing (what is packed already) to 9%. On every other megabyte
/// of a 692 MB image of Debian's packages, and on one core, `deflate` alone makes 34.3% of it at 314 MB/s, level 2 alone
/// 32.5% at 174, and so it is 33.4% at 231; on 1.2 GB of larger programs 40.0% at 278, 37.9% at 153, and 38.7% at 190.
/// So small, to a thousandth, are libdeflate's levels 1 and 2, chosen between in the same way, at 211 MB/s and at 184.
const WORTH_LEVEL_2: usize = 55;

/// What one core needs: the codec's tables, and room for a member's output.
pub(super) struct Worker {
    codec: Codec,
    output: Vec<u8>,
}

enum Codec {
    /// Level 1: an encoder of our own, another where that pays, and room for what the first makes.
    Fast {
        encoder: deflate::Encoder,
        better: libdeflater::Compressor,
        made: Vec<u8>,
    },
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Uncompressed bytes of one member.
pub(super) fn member_bytes(compression: Compression) -> usize {
    match compression {
        Compression::Gzip { .. } => limits::GZIP_MEMBER_BYTES,
        Compression::Zstd { .. } => limits::ZSTD_FRAME_BYTES,
    }
}

/// What determines the output beside the input: codec, level, member size, and the format's own version, which changes
/// when a new version of a codec is locked that compresses differently, or when this file is changed so.
pub(super) fn format(compression: Compression) -> String {
    let member = member_bytes(compression) >> 10;
    match compression {
        Compression::Gzip { level: 1 } => format!("gzip-1-{member}k-v3"),
        Compression::Gzip { level } => format!("gzip-{level}-{member}k-v2"),
        Compression::Zstd { level } => format!("zstd-{level}-{member}k-v1"),
    }
}

impl Worker {
    /// # Errors
    ///
    /// zstd's, when it cannot set itself up.
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        let size = member_bytes(compression);
        match compression {
            Compression::Gzip { level } => {
                // Level 1 is the other encoder's, and level 2 the better one beside it.
                let mut better = libdeflate(level.max(2));
                let output = vec![0; better.gzip_compress_bound(size)];
                let codec = match level {
                    1 => Codec::Fast { encoder: deflate::Encoder::new(), better, made: Vec::new() },
                    _ => Codec::Gzip(better),
                };
                Ok(Self { codec, output })
            }
            Compression::Zstd { level } => {
                let output = vec![0; zstd::zstd_safe::compress_bound(size)];
                Ok(Self { codec: Codec::Zstd(zstd_encoder(level)?), output })
            }
        }
    }

    /// # Errors
    ///
    /// The codec's. There is room for any member, so there is none to be expected.
    pub(super) fn compress(&mut self, member: &[u8]) -> io::Result<Bytes> {
        let written = match &mut self.codec {
            Codec::Fast { encoder, better, made } => {
                if !pays(encoder, better, member, made, &mut self.output)? {
                    made.clear();
                    encoder.gzip(member, made);
                    return Ok(Bytes::copy_from_slice(made));
                }
                better.gzip_compress(member, &mut self.output).map_err(io::Error::other)?
            }
            Codec::Gzip(encoder) => encoder.gzip_compress(member, &mut self.output).map_err(io::Error::other)?,
            Codec::Zstd(encoder) => encoder.compress_to_buffer(member, &mut self.output)?,
        };
        Ok(Bytes::copy_from_slice(self.output.get(..written).unwrap_or_default()))
    }
}

fn libdeflate(level: u8) -> libdeflater::Compressor {
    libdeflater::Compressor::new(CompressionLvl::new(i32::from(level)).unwrap_or_default())
}

/// zstd with the whole frame as its window, so that matches reach as far back as there is anything; level 2, the
/// default, with larger tables than its own, which are made for smaller windows.
///
/// On a 692 MB image, one core: level 2 as it is with frames of 1 MiB 216 MB at 390 MB/s; so 203 MB at 398 MB/s.
fn zstd_encoder(level: u8) -> io::Result<zstd::bulk::Compressor<'static>> {
    const TABLE_LOG: u32 = 17;
    const MATCH_BYTES: u32 = 6;
    let mut encoder = zstd::bulk::Compressor::new(i32::from(level))?;
    encoder.set_parameter(CParameter::WindowLog(limits::ZSTD_FRAME_BYTES.ilog2()))?;
    if level == 2 {
        encoder.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
        encoder.set_parameter(CParameter::HashLog(TABLE_LOG))?;
        encoder.set_parameter(CParameter::MinMatch(MATCH_BYTES))?;
    }
    Ok(encoder)
}

/// Whether `better` saves enough of a member, judged by a few pieces of it; `made` and `output` are overwritten.
fn pays(
    encoder: &mut deflate::Encoder,
    better: &mut libdeflater::Compressor,
    member: &[u8],
    made: &mut Vec<u8>,
    output: &mut [u8],
) -> io::Result<bool> {
    made.clear();
    let mut small = 0;
    for piece in member.chunks(member.len().div_ceil(PROBES).max(PROBE_BYTES)) {
        let probe = piece.get(..PROBE_BYTES).unwrap_or(piece);
        encoder.gzip(probe, made);
        small += better.gzip_compress(probe, output).map_err(io::Error::other)?;
    }
    Ok((1000 - WORTH_LEVEL_2) * made.len() > 1000 * small)
}
