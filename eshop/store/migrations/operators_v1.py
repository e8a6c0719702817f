"""Actions of operators, as first shipped, the same in both services."""

OPERATORS_V1 = """
CREATE TABLE operator_actions (
    action_id uuid PRIMARY KEY DEFAULT uuidv7(),
    action text NOT NULL CHECK (action IN ('freeze', 'unfreeze', 'refund')),
    user_id text COLLATE "C" NOT NULL,
    order_id uuid,
    reason text NOT NULL CHECK (reason <> ''),
    operator text NOT NULL CHECK (operator <> ''),
    at timestamptz NOT NULL DEFAULT now()
);
"""
