//! The CA, join tokens and certificates.

use futures_util::future::BoxFuture;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Name, Sqlite, audit, hash_at, rows};
use crate::store::{
    AuditRow, StoreError,
    identity::{
        Attempt, CaRow, CertificateRow, IdentityNews, IdentityStore, JoinTokenRow, Turned,
        may_renew, sql,
    },
};

impl IdentityStore for Sqlite {
    fn ca(&self) -> BoxFuture<'_, Result<Option<CaRow>, StoreError>> {
        Box::pin(async move {
            // Not of a reader: what was written a moment ago must be seen.
            let row = sqlx::query(sql::CA).fetch_optional(&self.writer).await;
            let row = row.map_err(self.name.failed())?;
            row.map(|row| ca(&row, &self.name)).transpose()
        })
    }

    fn add_ca(&self, ca: CaRow) -> BoxFuture<'_, Result<CaRow, StoreError>> {
        Box::pin(async move {
            sqlx::query(sql::ADD_CA)
                .bind(ca.certificate)
                .bind(ca.private_key)
                .execute(&self.writer)
                .await
                .map_err(self.name.failed())?;
            let kept = self.ca().await?;
            kept.ok_or_else(|| self.name.damaged("the CA is gone"))
        })
    }

    fn reseal_ca(&self, was: Vec<u8>, now: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let query = sqlx::query(sql::RESEAL_CA).bind(was).bind(now);
            let done = query.execute(&self.writer).await;
            done.map(drop).map_err(self.name.failed())
        })
    }

    fn join_tokens(&self) -> BoxFuture<'_, Result<Vec<JoinTokenRow>, StoreError>> {
        Box::pin(async move {
            let rows = self.read(sqlx::query(sql::TOKENS)).await?;
            rows.iter().map(|row| token(row, &self.name)).collect()
        })
    }

    fn join_token(&self, id: String) -> BoxFuture<'_, Result<Option<JoinTokenRow>, StoreError>> {
        Box::pin(async move {
            let rows = self.read(sqlx::query(sql::TOKEN).bind(id)).await?;
            rows.first().map(|row| token(row, &self.name)).transpose()
        })
    }

    fn add_join_token(
        &self,
        token: JoinTokenRow,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let failed = self.name.failed();
            let mut db = self
                .writer
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(&failed)?;
            sqlx::query(sql::ADD_TOKEN)
                .bind(token.id)
                .bind(token.hash.0.to_vec())
                .bind(token.node_id)
                .bind(token.created_ms as i64)
                .bind(token.created_by)
                .bind(token.expires_ms as i64)
                .execute(&mut *db)
                .await
                .map_err(&failed)?;
            audit::add(&mut db, audit).await.map_err(&failed)?;
            db.commit().await.map_err(failed)
        })
    }

    fn revoke_join_token(
        &self,
        id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let failed = self.name.failed();
            let mut db = self
                .writer
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(&failed)?;
            let revoked = sqlx::query(sql::REVOKE_TOKEN).bind(id).bind(at_ms as i64);
            let revoked = revoked.execute(&mut *db).await.map_err(&failed)?;
            if revoked.rows_affected() == 0 {
                return Ok(false);
            }
            audit::add(&mut db, audit).await.map_err(&failed)?;
            db.commit().await.map_err(failed)?;
            Ok(true)
        })
    }

    fn join(
        &self,
        attempt: Attempt,
        certificate: CertificateRow,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<Result<(), Turned>, StoreError>> {
        Box::pin(async move {
            let failed = self.name.failed();
            let mut db = self
                .writer
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(&failed)?;
            let kept = sqlx::query(sql::TOKEN).bind(&attempt.token_id);
            let kept = kept.fetch_optional(&mut *db).await.map_err(&failed)?;
            let kept = kept.map(|row| token(&row, &self.name)).transpose()?;
            let joined = sqlx::query(sql::JOINED).bind(&attempt.node_id);
            let joined = joined.fetch_optional(&mut *db).await.map_err(&failed)?;
            if let Err(turned) = attempt.judge(kept.as_ref(), joined.is_some()) {
                return Ok(Err(turned));
            }
            let (node_id, at_ms) = (attempt.node_id, attempt.at_ms as i64);
            let used = sqlx::query(sql::USE_TOKEN).bind(attempt.token_id);
            let used = used.bind(at_ms).bind(&node_id).execute(&mut *db);
            used.await.map_err(&failed)?;
            let version = next_version(&mut db).await.map_err(&failed)?;
            let join = sqlx::query(sql::JOIN).bind(node_id).bind(at_ms);
            let join = join.bind(version).execute(&mut *db);
            join.await.map_err(&failed)?;
            add(&mut db, certificate, version).await.map_err(&failed)?;
            audit::add(&mut db, audit).await.map_err(&failed)?;
            db.commit().await.map_err(failed)?;
            Ok(Ok(()))
        })
    }

    fn renew(
        &self,
        serial: String,
        certificate: CertificateRow,
    ) -> BoxFuture<'_, Result<Result<(), Turned>, StoreError>> {
        Box::pin(async move {
            let failed = self.name.failed();
            let mut db = self
                .writer
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(&failed)?;
            let kept = sqlx::query(sql::CERTIFICATE).bind(serial);
            let kept = kept.fetch_optional(&mut *db).await.map_err(&failed)?;
            let kept = kept.map(|row| self::certificate(&row, &self.name));
            if let Err(turned) = may_renew(kept.transpose()?.as_ref(), &certificate) {
                return Ok(Err(turned));
            }
            let version = next_version(&mut db).await.map_err(&failed)?;
            add(&mut db, certificate, version).await.map_err(&failed)?;
            db.commit().await.map_err(failed)?;
            Ok(Ok(()))
        })
    }

    fn certificate(
        &self,
        serial: String,
    ) -> BoxFuture<'_, Result<Option<CertificateRow>, StoreError>> {
        Box::pin(async move {
            let rows = self
                .read(sqlx::query(sql::CERTIFICATE).bind(serial))
                .await?;
            rows.first()
                .map(|row| certificate(row, &self.name))
                .transpose()
        })
    }

    fn revoke_node(
        &self,
        node_id: String,
        at_ms: u64,
        audit: AuditRow,
    ) -> BoxFuture<'_, Result<Option<u32>, StoreError>> {
        Box::pin(async move {
            let (failed, at_ms) = (self.name.failed(), at_ms as i64);
            let mut db = self
                .writer
                .begin_with("BEGIN IMMEDIATE")
                .await
                .map_err(&failed)?;
            let joined = sqlx::query(sql::JOINED).bind(&node_id);
            let joined = joined.fetch_optional(&mut *db).await.map_err(&failed)?;
            if joined.is_none() {
                return Ok(None);
            }
            let good = sqlx::query_scalar(sql::GOOD).bind(&node_id).bind(at_ms);
            let good: i64 = good.fetch_one(&mut *db).await.map_err(&failed)?;
            let version = next_version(&mut db).await.map_err(&failed)?;
            let revoke = sqlx::query(sql::REVOKE_NODE).bind(node_id).bind(at_ms);
            let revoke = revoke.bind(version).execute(&mut *db);
            revoke.await.map_err(&failed)?;
            audit::add(&mut db, audit).await.map_err(&failed)?;
            db.commit().await.map_err(failed)?;
            Ok(Some(good as u32))
        })
    }

    fn identities_since(
        &self,
        version: u64,
        at_ms: u64,
    ) -> BoxFuture<'_, Result<IdentityNews, StoreError>> {
        Box::pin(async move {
            // The number first: what is written meanwhile is read again.
            let number = self.read(sqlx::query(sql::VERSION)).await?;
            let number = number
                .first()
                .map(|row| rows::number(row, "version", &self.name));
            let number = number.transpose()?.unwrap_or(0);
            if number == version {
                return Ok(IdentityNews {
                    version,
                    ..IdentityNews::default()
                });
            }
            let joined = sqlx::query(sql::JOINED_SINCE).bind(version as i64);
            let joined = self.read(joined).await?;
            let found = sqlx::query(sql::CERTIFICATES_SINCE).bind(version as i64);
            let found = self.read(found.bind(at_ms as i64)).await?;
            let joined = joined
                .iter()
                .map(|row| rows::text(row, "node_id", &self.name));
            let found = found.iter().map(|row| certificate(row, &self.name));
            Ok(IdentityNews {
                version: number,
                joined: joined.collect::<Result<_, _>>()?,
                certificates: found.collect::<Result<_, _>>()?,
            })
        })
    }

    fn forget_expired(&self, before_ms: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            for statement in [sql::FORGET_CERTIFICATES, sql::FORGET_TOKENS] {
                sqlx::query(statement)
                    .bind(before_ms as i64)
                    .execute(&self.writer)
                    .await
                    .map_err(self.name.failed())?;
            }
            Ok(())
        })
    }
}

async fn next_version(db: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(sql::NEXT_VERSION).fetch_one(db).await
}

async fn add(
    db: &mut SqliteConnection,
    certificate: CertificateRow,
    version: i64,
) -> sqlx::Result<()> {
    sqlx::query(sql::ADD_CERTIFICATE)
        .bind(certificate.serial)
        .bind(certificate.node_id)
        .bind(certificate.issued_ms as i64)
        .bind(certificate.expires_ms as i64)
        .bind(version)
        .execute(db)
        .await
        .map(drop)
}

fn ca(row: &SqliteRow, name: &Name) -> Result<CaRow, StoreError> {
    Ok(CaRow {
        certificate: row.try_get("certificate").map_err(name.failed())?,
        private_key: row.try_get("private_key").map_err(name.failed())?,
    })
}

fn token(row: &SqliteRow, name: &Name) -> Result<JoinTokenRow, StoreError> {
    Ok(JoinTokenRow {
        id: rows::text(row, "id", name)?,
        hash: hash_at(row, "hash", name)?,
        node_id: rows::text(row, "node_id", name)?,
        created_ms: rows::number(row, "created_ms", name)?,
        created_by: rows::text(row, "created_by", name)?,
        expires_ms: rows::number(row, "expires_ms", name)?,
        used_ms: time(row, "used_ms", name)?,
        used_by: rows::text(row, "used_by", name)?,
        revoked_ms: time(row, "revoked_ms", name)?,
    })
}

fn certificate(row: &SqliteRow, name: &Name) -> Result<CertificateRow, StoreError> {
    Ok(CertificateRow {
        serial: rows::text(row, "serial", name)?,
        node_id: rows::text(row, "node_id", name)?,
        issued_ms: rows::number(row, "issued_ms", name)?,
        expires_ms: rows::number(row, "expires_ms", name)?,
        revoked_ms: time(row, "revoked_ms", name)?,
    })
}

fn time(row: &SqliteRow, column: &str, name: &Name) -> Result<Option<u64>, StoreError> {
    let time: Option<i64> = row.try_get(column).map_err(name.failed())?;
    Ok(time.map(|time| time as u64))
}
