"""Counts of redeliveries, and dead letters; the same in every service."""

MESSAGING_V2 = """
ALTER TABLE inbox
    ADD COLUMN redelivered integer NOT NULL DEFAULT 0 CHECK (redelivered >= 0),
    ADD COLUMN redelivered_at timestamptz;

CREATE TABLE dead_letters (
    dead_letter_id uuid PRIMARY KEY DEFAULT uuidv7(),
    consumer text COLLATE "C" NOT NULL,
    message_id uuid NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    type text,
    user_id text COLLATE "C",
    order_id uuid,
    cause text NOT NULL CHECK (cause <> ''),
    error text NOT NULL,
    status text NOT NULL DEFAULT 'parked' CHECK (status IN ('parked', 'replayed', 'discarded')),
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz CHECK ((resolved_at IS NULL) = (status = 'parked')),
    UNIQUE (consumer, message_id)
);
CREATE INDEX dead_letters_parked ON dead_letters (topic, partition, parked_at) WHERE status = 'parked';

ALTER TABLE operator_actions
    ALTER COLUMN user_id DROP NOT NULL,
    ADD COLUMN dead_letter_id uuid,
    DROP CONSTRAINT operator_actions_action_check,
    ADD CONSTRAINT operator_actions_action_check
        CHECK (action IN ('freeze', 'unfreeze', 'refund', 'replay', 'discard'));
"""
