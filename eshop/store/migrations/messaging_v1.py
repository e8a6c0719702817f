"""Inbox, outbox, watermarks and lease as first shipped, the same in both services."""

MESSAGING_V1 = """
CREATE TABLE inbox (
    consumer text COLLATE "C" NOT NULL,
    message_id uuid NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_id)
);
CREATE INDEX inbox_received_at ON inbox USING brin (received_at);

CREATE TABLE outbox (
    outbox_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (CACHE 1),
    message_id uuid NOT NULL UNIQUE DEFAULT uuidv7(),
    topic text NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    type text NOT NULL,
    source text NOT NULL,
    dataschema text NOT NULL,
    body text NOT NULL CHECK (octet_length(body) <= 65536),
    correlation_id text NOT NULL,
    causation_id text NOT NULL,
    traceparent text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    sent_partition integer,
    sent_offset bigint,
    CHECK ((sent_at IS NULL) = (sent_offset IS NULL)),
    CHECK (octet_length(correlation_id) + octet_length(causation_id) + octet_length(traceparent) <= 4096)
);
CREATE INDEX outbox_unsent ON outbox (outbox_id) WHERE sent_at IS NULL;
CREATE INDEX outbox_created_at ON outbox USING brin (created_at);

CREATE TABLE watermarks (
    consumer text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    PRIMARY KEY (consumer, topic, partition)
);

CREATE TABLE relay_lease (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder text NOT NULL,
    token bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
INSERT INTO relay_lease (holder, token, expires_at) VALUES ('', 0, '-infinity');
"""
