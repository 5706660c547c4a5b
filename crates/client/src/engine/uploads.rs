//! Records of files on their way to the relay, for [`transfer`](crate::transfer).

use super::{Engine, Fatal};
use crate::store::MAX_SCAN_ROWS;
use crate::store::vault::{Place, Table};
use crate::transfer::{AnswerTo, Keep};

impl Engine {
    /// Does what a transfer wants done with its records; it is told once that is committed.
    pub(crate) fn keep_upload(&mut self, keep: Keep, answer: AnswerTo) -> Result<(), Fatal> {
        match keep {
            Keep::All => answer.kept(self.vault.scan(Table::Uploads, MAX_SCAN_ROWS)?),
            Keep::Put(number, record) => {
                let mut txn = self.begin();
                txn.put_bytes(Place::number(Table::Uploads, number), &record);
                self.stage(txn);
                self.told_when_committed(answer);
            }
            Keep::Remove(number) => {
                let mut txn = self.begin();
                txn.remove(Place::number(Table::Uploads, number));
                self.stage(txn);
                self.told_when_committed(answer);
            }
        }
        Ok(())
    }

    fn told_when_committed(&mut self, answer: AnswerTo) {
        self.answers.push(Box::new(move || {
            answer.kept(Vec::new());
            None
        }));
    }
}
