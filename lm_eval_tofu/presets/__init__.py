"""Files that users point at: lm_eval run configs in `lm_eval/`; `lm-eval-tofu presets` prints their paths."""
