#!/bin/bash
# As in docker-stacks: what is run next sees the environment as activated.
eval "$(conda shell.bash hook)"
