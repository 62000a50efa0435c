//! Peers that keep us waiting: they accept and never answer, or answer a header at a time. A delivery ends as transient
//! in time, and the next, when they are well again, ends right.

use std::time::Duration;

use gantry::disposition::chain;
use gantry::import::Outcome;
use pipeline_tests::say;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::lab::{Elsewhere, IMPATIENT, Lab, image, tarball};

/// What a delivery has here.
const DELIVERY: Duration = Duration::from_secs(40);

/// How a peer keeps us waiting.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// It reads, and never answers.
    Silent,
    /// It does not even read.
    Deaf,
    /// It sends a header now and then, and never the last.
    HeaderByHeader,
    /// It sends the headers, and of the body a byte now and then.
    ByteByByte,
}

/// Far less than any timeout, so that whoever counts from the last byte waits for ever.
const NOW_AND_THEN: Duration = Duration::from_millis(200);

/// A peer of that manner on loopback; ends with the test.
async fn peer(manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 16 << 10];
                if matches!(manner, Manner::Deaf) || stream.read(&mut request).await.is_err() {
                    return std::future::pending::<()>().await;
                }
                let begins = match manner {
                    Manner::Silent | Manner::Deaf => return std::future::pending().await,
                    Manner::HeaderByHeader => "HTTP/1.1 200 OK\r\n",
                    Manner::ByteByByte => "HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n",
                };
                let again = if matches!(manner, Manner::HeaderByHeader) { "x-wait: longer\r\n" } else { " " };
                let mut next = begins;
                while stream.write_all(next.as_bytes()).await.is_ok() {
                    next = again;
                    sleep(NOW_AND_THEN).await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_us_waiting_is_given_up_in_time() {
    let manners = [Manner::Silent, Manner::Deaf, Manner::HeaderByHeader, Manner::ByteByByte];
    let mut running = tokio::task::JoinSet::new();
    let mut number = 20_000;
    for who in ["s3", "ecr", "registry", "events"] {
        for manner in manners {
            number += 1;
            running.spawn(async move {
                let label = format!("{who}, {manner:?}");
                let address = Some(peer(manner).await);
                let elsewhere = match who {
                    "s3" => Elsewhere { s3: address, ..Elsewhere::default() },
                    "ecr" => Elsewhere { ecr: address, ..Elsewhere::default() },
                    "registry" => Elsewhere { registry: address, ..Elsewhere::default() },
                    _ => Elsewhere { events: address, ..Elsewhere::default() },
                };
                let lab = Lab::start().await;
                let repository = lab.repository();
                let uploaded =
                    lab.pipeline.put(&format!("{repository}/1.0.0.tar"), &tarball(&image(number, 2, 30_000))).await;
                let began = Instant::now();
                let outcome = lab.deliver(&lab.importer(IMPATIENT, &elsewhere), &uploaded, 1, DELIVERY).await;
                let took = began.elapsed();
                let Outcome::Later { error, after } = outcome else { panic!("{label}: {outcome:?}") };
                assert!(took < DELIVERY, "{label}: {took:?}");
                assert!(after >= gantry::limits::REDELIVERY_FIRST, "{label}: it comes back after {after:?}");
                lab.all_is_whole(&repository, &label);
                assert!(who == "events" || lab.pipeline.tagged(&repository).is_empty(), "{label}");

                let importer = lab.importer(IMPATIENT, &Elsewhere::default());
                let outcome = lab.deliver(&importer, &uploaded, 2, DELIVERY).await;
                assert!(matches!(outcome, Outcome::Done(_)), "{label}: {outcome:?}");
                assert_eq!(lab.told_imported(&repository), 1, "{label}");
                format!("{label}: {:.1} s: {}", took.as_secs_f64(), chain(&error))
            });
        }
    }
    while let Some(line) = running.join_next().await {
        say(&format!("peers: {}", line.expect("the case holds")));
    }
}
