//! Writes of which nobody knows whether they happened.

use switchback_engine::EventKind;
use switchback_ports::journal::fake::{FakeJournal, Fault};

use super::*;
use crate::testing::{release, request};

fn asked_for(book: &mut Book) -> (ServiceKey, Event) {
    let release = release("v1");
    let key = release.key.clone();
    let request = request(book.take_id(), release);
    (key, Event { kind: EventKind::Requested(Box::new(request)), counts: None })
}

#[test]
fn what_was_written_in_doubt_is_taken_in_before_anything_else_is_written() {
    let writes: [fn(&mut Book); 3] = [
        |book| drop(book.note(&[])),
        |book| drop(book.recover()),
        |book| drop(book.add_configured(BTreeMap::from([("a".to_owned(), "b".to_owned())]))),
    ];
    for write in writes {
        let journal = FakeJournal::new();
        let mut book = Book::open(Box::new(journal.clone())).unwrap();
        let (key, event) = asked_for(&mut book);
        journal.fail_append(1, Fault::FailedAfterDurable);
        assert!(book.apply(&key, event).is_err());
        assert!(!book.services().contains_key(&key), "nobody knows whether it was written");
        write(&mut book);
        let again = Book::open(Box::new(journal)).unwrap();
        assert!(book.services().contains_key(&key));
        assert_eq!(book.services(), again.services());
    }
}
