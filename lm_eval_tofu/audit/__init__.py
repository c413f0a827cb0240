"""One audit of several models: `lm_eval`, the white-box audits and the report, as commands that resume."""
