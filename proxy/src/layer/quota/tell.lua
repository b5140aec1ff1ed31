-- Says what a sidecar has spent in slots of budgets beside what it was let in for, or less; see `admit.lua`.
--
-- It says all of that, not what it adds: said twice it counts once, and what was lost is there again with
-- the next word. Words may overtake each other: the last one that was said counts.
--
-- KEYS: slots. ARGV: id, number of this word; for each slot: when it is gone (Unix milliseconds), kinds; for
-- each kind: its word, and what it is.
local id, number, arg = ARGV[1], tonumber(ARGV[2]), 3
for _, key in ipairs(KEYS) do
  local gone, kinds = ARGV[arg], tonumber(ARGV[arg + 1])
  arg = arg + 2
  local is_news = number > tonumber(redis.call('HGET', key, 'word ' .. id) or '0')
  for _ = 1, kinds do
    local word, rest = ARGV[arg], ARGV[arg + 1]
    local field = word .. ' rest ' .. id
    if is_news then
      local more = tonumber(rest) - tonumber(redis.call('HGET', key, field) or '0')
      if more ~= 0 then
        redis.call('HINCRBY', key, word, string.format('%.0f', more))
        redis.call('HSET', key, field, rest)
      end
    end
    arg = arg + 2
  end
  if is_news then
    redis.call('HSET', key, 'word ' .. id, ARGV[2])
    redis.call('PEXPIREAT', key, gone)
  end
end
return #KEYS
