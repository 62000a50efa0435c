//! Streams as the tools write them, and as an attacker might. Compressed by the crates' own encoders.

use std::io::Write as _;

use futures::stream;

use super::*;

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * at / 7 + at % 13) % 251).unwrap()).collect()
}

fn compressed(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Zstd => {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            // As the program zstd does; without it a flipped bit may pass, and is found by the layer's digest.
            encoder.include_checksum(true).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn decoded(codec: Codec, bytes: &[u8], chunk: usize) -> Result<Vec<u8>, DecodeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let chunks: Vec<_> = bytes.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let mut decoded = decode(stream::iter(chunks).boxed(), codec, limits::DECODER_WINDOW_BYTES);
        let mut plain = Vec::new();
        while let Some(chunk) = decoded.next().await? {
            plain.extend_from_slice(&chunk);
        }
        assert_eq!(decoded.given_bytes(), plain.len() as u64);
        Ok(plain)
    })
}

const ALL: [Codec; 4] = [Codec::Gzip, Codec::Zstd, Codec::Xz, Codec::Bzip2];

#[test]
fn every_codec_is_told_by_its_first_bytes_and_decoded_whatever_the_chunks() {
    let plain = sample(700_000);
    for codec in ALL {
        let bytes = compressed(codec, &plain);
        assert_eq!(Codec::of(&bytes), Some(codec));
        for chunk in [1_000, 77_777, usize::MAX] {
            assert!(decoded(codec, &bytes, chunk).unwrap() == plain, "{codec} by {chunk}");
        }
    }
    assert_eq!(Codec::of(b"BZh0"), None);
    assert_eq!(Codec::of(b"\x1f"), None);
}

#[test]
fn streams_one_after_the_other_are_one_file() {
    let (one, two) = (sample(300_000), sample(5_000));
    for codec in ALL {
        let both = [compressed(codec, &one), compressed(codec, &two)].concat();
        assert!(decoded(codec, &both, 4_096).unwrap() == [one.as_slice(), &two].concat(), "{codec}");
    }
    let skippable: &[u8] = &[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let framed = [skippable, &compressed(Codec::Zstd, &one), skippable].concat();
    assert_eq!(Codec::of(&framed), Some(Codec::Zstd));
    assert!(decoded(Codec::Zstd, &framed, 100).unwrap() == one);
    let padded = [compressed(Codec::Gzip, &one), vec![0; 10_240]].concat();
    assert!(decoded(Codec::Gzip, &padded, 1_000).unwrap() == one, "zeros behind a gzip file");
    let padded = [compressed(Codec::Xz, &one), vec![0; 8], compressed(Codec::Xz, &two), vec![0; 4]].concat();
    assert!(decoded(Codec::Xz, &padded, 1_000).unwrap().len() == 305_000, "stream padding");
}

#[test]
fn a_stream_that_is_cut_or_damaged_says_which_codec_and_where() {
    let plain = sample(400_000);
    for codec in ALL {
        let whole = compressed(codec, &plain);
        for cut in [7, whole.len() / 2, whole.len() - 1] {
            let error = decoded(codec, &whole[..cut], 5_000).map(|plain| plain.len()).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, DecodeError::CutOff { .. }), "{codec} cut at {cut}: {error:?}");
            assert!(text.contains(&format!("the {codec} stream is cut off: it ends at byte {cut},")), "{text}");
        }
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0xff;
        let error = decoded(codec, &flipped, 5_000).map(|plain| plain.len()).unwrap_err();
        assert!(matches!(error, DecodeError::Damaged { .. }), "{codec}: {error:?}");
        assert_eq!(error.disposition(), Disposition::Permanent);
        let trailing = [whole.as_slice(), b"trailing"].concat();
        let error = decoded(codec, &trailing, 5_000).map(|plain| plain.len()).unwrap_err();
        assert!(matches!(error, DecodeError::Damaged { .. } | DecodeError::CutOff { .. }), "{codec}: {error:?}");
    }
}

#[test]
fn a_window_at_the_limit_is_decoded_and_one_beyond_is_refused_by_name() {
    let plain = sample(100_000);
    let zstd = |log: u32| {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    };
    let xz = |dictionary: u32| {
        let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
        options.dict_size(dictionary);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    };
    let limit = limits::DECODER_WINDOW_BYTES;
    assert!(decoded(Codec::Zstd, &zstd(limit.ilog2()), 1_000).unwrap() == plain);
    assert!(decoded(Codec::Xz, &xz(u32::try_from(limit).unwrap()), 1_000).unwrap() == plain);

    let error = decoded(Codec::Zstd, &zstd(limit.ilog2() + 1), 1_000).map(|plain| plain.len()).unwrap_err().to_string();
    assert!(error.contains("the zstd stream needs a window of 134217728 bytes; at most 67108864"), "{error}");
    let error = decoded(Codec::Xz, &xz(u32::try_from(limit + limit / 2).unwrap()), 1_000)
        .map(|plain| plain.len())
        .unwrap_err()
        .to_string();
    assert!(error.contains("the xz stream needs a window of 100663296 bytes; at most 67108864"), "{error}");
    // Where the first frame is harmless, the decoder itself knows the limit.
    let behind = [compressed(Codec::Zstd, &plain), zstd(limit.ilog2() + 1)].concat();
    let error = decoded(Codec::Zstd, &behind, 1_000).map(|plain| plain.len()).unwrap_err();
    assert!(matches!(error, DecodeError::Window { needed_bytes: None, .. }), "{error:?}");
}

#[test]
fn a_bomb_is_refused_where_it_passes_the_ratio() {
    // 256 MiB and a little of zeros: with slack alone they pass, and the next ones do not.
    let zeros = vec![0; 1 << 20];
    for (mebibytes, refused) in [(250, false), (400, true)] {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..mebibytes {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcome = runtime.block_on(async {
            let mut decoded =
                decode(stream::iter([Ok(Bytes::from(bomb))]).boxed(), Codec::Zstd, limits::DECODER_WINDOW_BYTES);
            while decoded.next().await?.is_some() {}
            Ok::<_, DecodeError>(())
        });
        assert_eq!(matches!(outcome, Err(DecodeError::Expands { .. })), refused, "{mebibytes}: {outcome:?}");
    }
}

#[test]
fn what_cannot_be_read_is_said_as_it_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(async {
        let body = stream::iter([Ok(Bytes::from_static(b"\x1f\x8b")), Err(ObjectError::Broken("reset".into()))]);
        decode(body.boxed(), Codec::Gzip, 1 << 20).next().await.unwrap_err()
    });
    assert_eq!(error.disposition(), Disposition::Transient, "{error:?}");
}
