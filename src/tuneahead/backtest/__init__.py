"""Backtests: how well would the predictor have done on runs whose outcome is known?"""

from tuneahead.backtest.result import BacktestOptions as BacktestOptions
from tuneahead.backtest.result import BacktestResult as BacktestResult
from tuneahead.backtest.result import read_result as read_result
from tuneahead.backtest.run import backtest as backtest
