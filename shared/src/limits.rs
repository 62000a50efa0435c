//! Every number that bounds what we believe, hold or wait for, each with its reason.

use std::time::Duration;

/// 1 KiB in bytes.
const KIB: u64 = 1 << 10;
/// 1 MiB in bytes.
const MIB: u64 = 1 << 20;
/// 1 GiB in bytes.
const GIB: u64 = 1 << 30;

// --- Archives -------------------------------------------------------------------------------------------------

/// Entries in one archive. The largest real archives have a few thousand (127 layers of three entries each, times
/// several images); each costs about 150 bytes of memory while it is walked.
pub const ARCHIVE_ENTRIES: usize = 100_000;

/// Bytes of one JSON entry (`manifest.json`, `index.json`, an image config). ECR's own limit for a manifest is
/// 4 MiB (4,194,304 characters, API reference of `PutImage`); image configs are smaller.
pub const JSON_BYTES: u64 = 4 * MIB;

/// Bytes of one pax or GNU long-name record. Paths are at most 4,096 bytes on Linux; pax records carry extended
/// attributes too, which the kernel limits to 64 KiB each.
pub const HEADER_EXTENSION_BYTES: u64 = MIB;

/// Bytes of one path or link target: `PATH_MAX` on Linux.
pub const PATH_BYTES: u64 = 4_096;

/// Bytes of all paths and link targets of one archive: 160 for each of [`ARCHIVE_ENTRIES`], twice what the longest
/// layouts have, and an eighth of the memory there is.
pub const ALL_PATHS_BYTES: u64 = 16 * MIB;

/// Links followed from one path. Linux gives up after 40; real archives need one.
pub const LINK_DEPTH: usize = 16;

/// Layers of one image. Docker's limit is 127 (`MaxLayerDepth`); nix and Bazel stay below it.
pub const LAYERS: usize = 128;

/// Images in one archive, so that one upload cannot claim the registry's 10 `PutImage` a second for minutes.
pub const IMAGES: usize = 100;

/// Manifests reachable from one `index.json`.
pub const MANIFESTS: usize = 1_000;

/// Configs and layers that the manifests of one OCI layout name, all together: charts and file collections have more
/// layers than [`LAYERS`], and [`IMAGES`] of ten platforms with 50 layers stay at this.
pub const BLOBS: u64 = 50_000;

/// Bytes of all manifests of one OCI layout, which are held until they are put: [`MANIFESTS`] of 8 KiB.
pub const ALL_MANIFESTS_BYTES: u64 = 8 * MIB;

/// Indexes inside indexes. BuildKit and buildah nest once or twice.
pub const INDEX_DEPTH: usize = 8;

/// Bytes one header read fetches ahead: small enough that skipping bodies stays cheap, large enough that the small
/// entries between layers come with their headers.
pub const HEADER_WINDOW_BYTES: u64 = 32 * KIB;

/// Reads that the headers of one plain archive may take: one for each file that is larger than
/// [`HEADER_WINDOW_BYTES`]. At 20 ms each they take half of a delivery; the largest images have some hundred.
pub const HEADER_READS: u64 = 20_000;

/// Uncompressed bytes of a layer for each stored byte. Deflate cannot exceed 1,032; a layer above this is a bomb.
pub const EXPANSION_RATIO: u64 = 1_100;

/// Bytes of one layer: ECR's limit for a push over the registry API (AWS what's-new of 2026-08-03).
pub const LAYER_BYTES: u64 = 200 * GIB;

/// Unindexed blobs of an OCI layout that are read to see whether they are referrers of an image in it. Signing tools
/// write one or two for each image.
pub const REFERRERS: usize = 256;

/// Bytes of an unindexed blob that may be a referrer: manifests of signatures and SBOMs have about one KiB.
pub const REFERRER_BYTES: u64 = 64 * KIB;

// --- Compressed archives --------------------------------------------------------------------------------------

/// Bytes of all JSON entries that are kept from the first pass over a compressed archive.
///
/// The manifests and configs of a large one have a few hundred KiB; the largest entries go first when there are more.
pub const KEPT_JSON_BYTES: u64 = 8 * MIB;

/// Bytes of window that a decoder may ask for: half the function's memory budget of 128 MiB. `xz -9` has 64 MiB and
/// `zstd -19` 8 MiB; `zstd --long=31` would need 2 GiB.
pub const DECODER_WINDOW_BYTES: u64 = 64 * MIB;

/// Bytes of window for a layer, of which as many as [`BLOBS_AT_ONCE`] may be decoded at once: twice what `zstd -19` and the
/// builders ask for.
pub const LAYER_WINDOW_BYTES: u64 = 16 * MIB;

/// Bytes that a stream may expand to before [`EXPANSION_RATIO`] counts: small archives of zeros are no bombs.
pub const EXPANSION_SLACK_BYTES: u64 = 256 * MIB;

/// Bytes of one ranged read of a compressed archive, which is read by one stream only: with
/// [`DECODER_RANGES_AHEAD`] more than decoders other than zstd's take, and little beside their window.
pub const DECODER_RANGE_BYTES: u64 = MIB;

/// Ranged reads under way beside the one that is decoded.
pub const DECODER_RANGES_AHEAD: usize = 3;

/// Megabytes of output a second on one core of GNU gzip, the slowest decoder of its kind; measured beside the others
/// below, on the same core, over the layers of one image.
pub const GZIP_MEGABYTES_A_SECOND: u64 = 139;
/// Of zstd; see [`GZIP_MEGABYTES_A_SECOND`].
pub const ZSTD_MEGABYTES_A_SECOND: u64 = 945;
/// Of xz; see [`GZIP_MEGABYTES_A_SECOND`].
pub const XZ_MEGABYTES_A_SECOND: u64 = 45;
/// Of bzip2; see [`GZIP_MEGABYTES_A_SECOND`].
pub const BZIP2_MEGABYTES_A_SECOND: u64 = 21;

// --- Reading --------------------------------------------------------------------------------------------------

/// Bytes of one ranged read. The S3 guide advises 8 to 16 MiB for one stream; several streams of half of that are as
/// fast, and start sooner to give.
pub const RANGE_BYTES: u64 = 4 * MIB;

/// Ranged reads of layers that are under way or wait to be compressed, over all layers at once.
///
/// With 30 ms to the first byte and 85 MB/s for each connection, a range takes 80 ms, so two of them saturate the 75 MiB/s
/// of an environment, and first bytes that take 200 ms need six. Eight, which is what the default size gets, are 32 MiB
/// of the memory budget of 128.
pub const RANGES_AT_ONCE: std::ops::RangeInclusive<usize> = 6..=32;

/// MiB of a function's memory for each range at once: 1% of it is read ahead.
pub const MEMORY_MIB_PER_RANGE: u64 = 375;

/// Blobs that are read, compressed and sent at once.
///
/// One more than there are cores, so that closing an upload idles none, and no fewer than three, since one connection to
/// S3 or ECR alone does not use the network. Above five blobs in flight ECR was seen to reset connections.
pub const BLOBS_AT_ONCE: std::ops::RangeInclusive<usize> = 3..=5;

/// How long a range may take before it is given up and continued on another connection, at the least: first bytes of S3
/// take 100 to 200 ms, and S3's guide advises to retry what is slower than its like.
pub const RANGE_PATIENCE: Duration = Duration::from_secs(1);

/// The same before anything is known about the network.
pub const RANGE_PATIENCE_FIRST: Duration = Duration::from_secs(5);

/// How many times as long as other ranges one may take before it counts as slow.
pub const SLOW_RANGE: u32 = 4;

/// Times a range is continued on a fresh connection after its body ended early.
pub const RANGE_CONTINUATIONS: usize = 5;

// --- Compression ----------------------------------------------------------------------------------------------

/// Uncompressed bytes of one gzip member.
///
/// Deflate looks back 32 KiB at most, so larger members compress no better than 0.1% and cost memory for each core;
/// smaller ones pay the 18 bytes of header and trailer and the empty window more often.
pub const GZIP_MEMBER_BYTES: usize = 1 << 20;

/// Uncompressed bytes of one zstd frame, and its window.
///
/// zstd looks back over all of it: frames of 1 MiB are 5% larger than these, frames of 8 MiB 1% smaller, for twice the
/// memory. Every decoder takes windows of 8 MiB (RFC 8878, section 3.1.1.1.2).
pub const ZSTD_FRAME_BYTES: usize = 4 << 20;

// --- Registry -------------------------------------------------------------------------------------------------

/// Bytes of a manifest that ECR accepts (API reference of `PutImage`: 4,194,304 characters).
pub const MANIFEST_BYTES: u64 = 4 * MIB;

/// Bytes of an error body that are read and kept for the message.
pub const ERROR_BODY_BYTES: u64 = 64 * KIB;

/// Attempts at one small registry request before the delivery gives up; ECR's 10 `PutImage` a second make busy
/// answers normal, and at most six tries with backoff outlast a burst.
pub const REQUEST_ATTEMPTS: usize = 6;

/// Attempts at one blob, each from its first byte and in a new upload session: as many as at a small request, since
/// the session's start is one.
pub const BLOB_ATTEMPTS: usize = 6;

/// The first pause between attempts; it doubles, with jitter.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// The longest pause between attempts inside one delivery.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(10);

/// How long a connection may take to come up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one small request to a registry may take, with all of its answer: a manifest of 4 MiB at 200 KB/s.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the registry may let a body stand still, or think after its last byte; the closing PUT of a large blob is
/// the slowest.
pub const STANDSTILL_TIMEOUT: Duration = Duration::from_mins(2);

/// How long one attempt at a call of an AWS API may take; pages of a thousand findings or tags are the slowest.
pub const CALL_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a call may take with the SDK's own three attempts and the pauses between them.
pub const CALL_TIMEOUT: Duration = Duration::from_mins(1);

/// How long the body of one range may be waited for, beside [`RANGE_BYTES_A_SECOND`]. S3's guide has small requests
/// tried again after two seconds.
pub const RANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a range's body must bring in a second on the average: a thousandth of what a function's network does.
pub const RANGE_BYTES_A_SECOND: u64 = 64 * KIB;

/// How long a token must still be valid to be used: ECR's tokens live 12 hours, one delivery at most 15 minutes.
pub const TOKEN_MARGIN: Duration = Duration::from_mins(20);

// --- Judging --------------------------------------------------------------------------------------------------

/// Findings of one image that are read: 50 pages. An image with more is nobody's to release.
pub const FINDINGS: usize = 50_000;

/// Findings named in a record, an event and a message: what a person reads before looking at the console.
pub const TOP_FINDINGS: usize = 8;

/// Characters of each text of such a finding: Inspector may name dozens of packages.
pub const FINDING_CHARS: usize = 200;

/// How old a policy may be that a sweep judges by, before it asks for the one in force.
pub const POLICY_AGE: Duration = Duration::from_mins(1);

/// Bytes of the policy file: some thousand exceptions.
pub const POLICY_BYTES: usize = 256 << 10;

/// Bytes of all labels of an image that its record keeps, for policies that ask for them; longer values are cut.
pub const LABELS_BYTES: usize = 16 << 10;

/// Tags of one repository that are listed to find the highest release: ECR holds 100,000 images in a repository, and
/// hardly any has more than one tag.
pub const TAGS: usize = 200_000;

/// Rounds of putting floating tags and listing again. Each ends with the highest release of its moment, so more are
/// needed only while others push; reconciliation has the last word.
pub const TAGGING_ROUNDS: usize = 8;

/// How long a claim to tell a fact holds: a process that claimed it and did not tell it by then has died.
pub const CLAIM: Duration = Duration::from_mins(2);

/// How long sweeps still look at an image that was not there: one that is being pushed is not there for a while.
pub const GONE: Duration = Duration::from_hours(1);

/// Deliveries of an event that ask for what is not there: ECR may tell of a push before it lists the image, and of a
/// scan before it gives the findings.
pub const GONE_DELIVERIES: u32 = 3;

/// Tags named in an event or a message; the rest of a thousand would not fit into one.
pub const TAGS_TOLD: usize = 50;

/// How far clocks of functions may differ, for deciding whether findings were read after an event.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Characters of a reason in events and messages, which have 256 KiB in all.
pub const REASON_CHARS: usize = 2_000;

// --- Deliveries -----------------------------------------------------------------------------------------------

/// Time kept free before the function's deadline: enough to close what is under way, write the receipt and hand
/// the message back.
pub const DEADLINE_MARGIN: Duration = Duration::from_secs(45);

/// What a delivery reads, compresses and sends in a second until its own rate was seen, and what is planned with: four
/// fifths of the 75 MiB that a function's network moves once its burst is over.
///
/// In the 855 s of a delivery that is 50 GiB, the largest layer. Ten deliveries move an upload of 250 GiB whatever its
/// layers are: one that did not fit into a delivery begins the next, so two in a row move more than one could.
pub const DELIVERY_BYTES_A_SECOND: u64 = 60 * MIB;

/// How long a rate must have been seen to be planned with: as long as a function's burst (300 MiB) lasts at its
/// lasting rate.
pub const RATE_SETTLES: Duration = Duration::from_secs(4);

/// Deliveries of a message that the template allows (`MaxReceives`), for planning where no queue says so.
pub const DELIVERIES: u32 = 10;

/// The first backoff of a message whose import failed; doubled with each receive.
pub const REDELIVERY_FIRST: Duration = Duration::from_secs(5);

/// The longest backoff of a message: a person who repairs a role should not wait long for the next try.
pub const REDELIVERY_LONGEST: Duration = Duration::from_mins(10);

/// How long a message that made progress waits before the next delivery continues.
pub const CONTINUE_AFTER: Duration = Duration::from_secs(1);

/// Attempts at one conditional write before the caller hears of the contention.
pub const CONDITIONAL_WRITE_ATTEMPTS: usize = 10;

/// Bytes of one state document or receipt: the largest, a receipt of 100 images, has about 1 MiB.
pub const DOCUMENT_BYTES: u64 = 8 * MIB;

/// Images in one repository, ECR's quota: a lifecycle rule that keeps as many expires none.
pub const IMAGES_IN_A_REPOSITORY: u32 = 100_000;

/// Time between two receipts that only tell progress.
pub const PROGRESS_RECEIPT_EVERY: Duration = Duration::from_secs(15);

// --- Uploads that nothing is heard of --------------------------------------------------------------------------

/// How long after an upload its event may be on its way: EventBridge takes seconds, and an import that has begun says
/// so within a second.
pub const UNSEEN: Duration = Duration::from_mins(10);

/// The longest visibility timeout that SQS takes (SQS quotas).
pub const VISIBILITY_LONGEST: Duration = Duration::from_hours(12);

/// The longest time that SQS keeps a message (SQS quotas).
pub const RETENTION_LONGEST: Duration = Duration::from_hours(14 * 24);

/// Uploads that one run of reconcile looks at, at two requests each: 20 cents a day if every run finds as many. A
/// million are gone through in 50 runs.
pub const UPLOADS_A_RUN: u64 = 20_000;

/// Uploads that are looked at at once.
pub const UPLOADS_AT_ONCE: usize = 16;

/// Uploads that one run sends round again, so that it does not flood the queue.
pub const RESENT_A_RUN: usize = 100;

/// Times that an upload is sent round again before it is given up.
pub const RESENDS: u32 = 3;

/// How long one delivery of an upload takes at most, as the template has it.
pub const DELIVERY: Duration = Duration::from_mins(15);

/// Messages of the failed queue that are looked at in one run: 100 requests.
pub const FAILED_MESSAGES: usize = 1_000;

/// How long messages of the failed queue are out of sight while they are looked at: several times what it takes.
pub const FAILED_HIDDEN: Duration = Duration::from_mins(2);
