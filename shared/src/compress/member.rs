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

/// What level 2 must save of what level 1 makes of those pieces, in percent, for it to be taken where level 1 was asked
/// for.
///
/// Level 2 takes 35% longer everywhere, and saves from nothing (what is packed already) to 7%. On a 692 MB image of
/// Debian's packages, level 1 alone makes 233 MB at 243 MB/s for each core, level 2 alone 224 at 179, and so it is 229 at
/// 215; on 1.2 GB of larger programs 464 at 211, 447 at 159, 457 at 186.
const WORTH_LEVEL_2: usize = 3;

/// What one core needs: the codec's tables, and room for a member's output.
pub(super) struct Worker {
    codec: Codec,
    output: Vec<u8>,
}

enum Codec {
    Gzip { encoder: libdeflater::Compressor, better: Option<libdeflater::Compressor> },
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
        Compression::Gzip { level } => format!("gzip-{level}-{member}k-v3"),
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
                let mut encoder = deflate(level);
                let output = vec![0; encoder.gzip_compress_bound(size)];
                let better = (level == 1).then(|| deflate(2));
                Ok(Self { codec: Codec::Gzip { encoder, better }, output })
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
            Codec::Gzip { encoder, better } => {
                let encoder = match better {
                    Some(better) => choose(encoder, better, member, &mut self.output)?,
                    None => encoder,
                };
                encoder.gzip_compress(member, &mut self.output).map_err(io::Error::other)?
            }
            Codec::Zstd(encoder) => encoder.compress_to_buffer(member, &mut self.output)?,
        };
        Ok(Bytes::copy_from_slice(self.output.get(..written).unwrap_or_default()))
    }
}

fn deflate(level: u8) -> libdeflater::Compressor {
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

/// `better` where it saves enough of a member, judged by a few pieces of it; `output` is overwritten.
fn choose<'encoders>(
    encoder: &'encoders mut libdeflater::Compressor,
    better: &'encoders mut libdeflater::Compressor,
    member: &[u8],
    output: &mut [u8],
) -> io::Result<&'encoders mut libdeflater::Compressor> {
    let (mut large, mut small) = (0_usize, 0_usize);
    for piece in member.chunks(member.len().div_ceil(PROBES).max(PROBE_BYTES)) {
        let probe = piece.get(..PROBE_BYTES).unwrap_or(piece);
        large += encoder.deflate_compress(probe, output).map_err(io::Error::other)?;
        small += better.deflate_compress(probe, output).map_err(io::Error::other)?;
    }
    Ok(if (100 - WORTH_LEVEL_2) * large > 100 * small { better } else { encoder })
}
