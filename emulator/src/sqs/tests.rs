use tempfile::TempDir;

use super::*;
use crate::account;

fn queue(name: &str, dead: Option<&str>) -> template::Queue {
    template::Queue {
        name: name.to_owned(),
        arn: account::arn("sqs", name),
        url: format!("http://127.0.0.1:1/{}/{name}", account::ID),
        visibility: Duration::from_hours(1),
        delay: Duration::ZERO,
        redrive: dead.map(|dead| template::Redrive { dead_letter_arn: account::arn("sqs", dead), max_receives: 2 }),
        policy: Vec::new(),
    }
}

fn open(folder: &TempDir, waits: Waits) -> Queues {
    let settings = [queue("jobs", Some("dead")), queue("dead", None)];
    Queues::open(folder.path().to_owned(), settings, waits).unwrap()
}

fn ask(wait: Option<Duration>) -> Ask {
    Ask { most: 10, visibility: None, wait }
}

#[tokio::test]
async fn a_restart_loses_nothing_and_keeps_receive_counts() {
    let folder = tempfile::tempdir().unwrap();
    let queues = open(&folder, Waits::Real);
    for body in ["a", "b", "c"] {
        queues.send("jobs", body, Extras::default()).unwrap();
    }
    let first = Ask { most: 2, ..ask(Some(Duration::ZERO)) };
    let received = queues.receive("jobs", first).await.unwrap();
    queues.delete("jobs", &received[0].receipt).unwrap();
    drop(queues);

    let queues = open(&folder, Waits::Real);
    let received = queues.receive("jobs", ask(Some(Duration::ZERO))).await.unwrap();
    let seen: Vec<(&str, u32)> =
        received.iter().map(|received| (received.message.body.as_str(), received.message.receives)).collect();
    assert_eq!(seen, [("b", 2), ("c", 1)]);
}

#[tokio::test]
async fn a_waiting_receiver_hears_of_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let queues = open(&folder, Waits::Real);
    let (received, sent) =
        tokio::join!(queues.receive("jobs", ask(None)), async { queues.send("jobs", "a", Extras::default()) });
    assert_eq!(received.unwrap()[0].message.id, sent.unwrap().id);
}

#[tokio::test]
async fn skipped_waits_deliver_until_the_message_is_dead() {
    let folder = tempfile::tempdir().unwrap();
    let queues = open(&folder, Waits::Skipped);
    let extras = Extras { delay: Some(Duration::from_mins(15)), ..Extras::default() };
    queues.send("jobs", "a", extras).unwrap();
    for round in 1..=2 {
        let received = queues.receive("jobs", ask(None)).await.unwrap();
        assert_eq!(received[0].message.receives, round);
        queues.change_visibility("jobs", &received[0].receipt, Duration::from_mins(5)).unwrap();
        queues.release("jobs", &received[0].receipt);
    }
    // Nothing is left to receive: the third receive moves the message.
    let (drained, received) =
        tokio::join!(queues.drained("jobs"), queues.receive("jobs", ask(Some(Duration::from_millis(1)))));
    drained.unwrap();
    assert!(received.unwrap().is_empty());
    let dead = queues.messages("dead").unwrap();
    assert_eq!(dead[0].dead_letter_source.as_deref(), Some("arn:aws:sqs:us-east-1:123456789012:jobs"));
    assert_eq!(queues.redrive("dead", None).unwrap(), 1);
    let back = queues.messages("jobs").unwrap();
    assert_eq!((back[0].receives, back[0].body.as_str()), (0, "a"));
    assert_ne!(back[0].id, dead[0].id);
}

#[tokio::test]
async fn time_is_not_skipped_while_somebody_works() {
    let folder = tempfile::tempdir().unwrap();
    let queues = open(&folder, Waits::Skipped);
    queues.send("jobs", "a", Extras::default()).unwrap();
    let held = queues.receive("jobs", ask(None)).await.unwrap();
    let none = queues.receive("jobs", ask(Some(Duration::from_millis(1)))).await.unwrap();
    assert!(none.is_empty());
    queues.release("jobs", &held[0].receipt);
    let again = queues.receive("jobs", ask(None)).await.unwrap();
    assert_eq!(again[0].message.receives, 2);
}

#[test]
fn what_is_no_queue_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let queues = open(&folder, Waits::Real);
    for name in ["", "other", "arn:aws:sqs:us-east-1:123456789012:other"] {
        assert!(matches!(queues.name(name), Err(SqsError::NoQueue)), "{name}");
    }
    for name in ["jobs", "http://127.0.0.1:9/123456789012/jobs"] {
        assert_eq!(queues.name(name).unwrap(), "jobs");
    }
}
