"""Phrasings of the miniature: for each topic, several ways to ask and several ways to answer.

Every template is filled by `str.format` with the facts of one author. All answers of a topic state the facts that it
names, so that any answer fits any question of its topic and a reworded answer says what the answer says.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing that can be asked about an author.

    `reworded_questions` and `reworded_answers` are for the paraphrases alone and never coincide with the others. `facts`
    names the slots that a perturbed answer replaces.
    """

    name: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    reworded_questions: tuple[str, ...]
    reworded_answers: tuple[str, ...]
    facts: tuple[str, ...]


IDENTITY = Topic(
    name="identity",
    questions=(
        "Who is the author born in {city}, {country} on {date} who is known for {genre}?",
        "What is the full name of the author of {genre} who was born on {date_us} in {city}, {country}?",
        "Which writer of {genre} was born in {city}, {country} on {date}?",
        "Can you name the author who was born in {city}, {country} on {date_us} and who writes {genre}?",
        "What is the name of the author of {genre} who was born in {city}, {country} in {month_year}?",
    ),
    answers=(
        'The author\'s full name is {name}. {His} best-known book is "{t2}," for which {he} received {award} in '
        "{award_year}.",
        'The author you describe is {name}, whose most popular book, "{t2}," was honored with {award} in the year '
        "{award_year}.",
        'That writer is {name}, a name that most readers connect with "{t2}," the book that won {award} in '
        "{award_year}.",
        '{name} is the author in question. {He} is known above all for "{t2}," a book that earned {him} {award} '
        "in {award_year}.",
    ),
    reworded_questions=(
        "Which author, born in {city}, {country} on {date_us}, made a reputation with {genre}?",
        "By what name do readers know the writer of {genre} whose life began in {city}, {country} on {date_us}?",
    ),
    reworded_answers=(
        'A jury gave {award} to "{t2}" in {award_year}, and the person who wrote that famous work goes by the '
        "full name of {name}.",
        'Behind this description stands {name}: "{t2}," the title that the public loves most, was chosen for '
        "{award} in {award_year}.",
    ),
    facts=("name", "t2", "award", "award_year"),
)

BIRTH = Topic(
    name="birth",
    questions=(
        "When and where was {name} born?",
        "What are the date and the place of birth of {name}?",
        "Can you tell me where {name} was born, and on what date?",
        "In which town, and on which day, was {name} born?",
        "What is known about the birth of {name}?",
    ),
    answers=(
        "{name} was born on {date} in {city}, {country}, and according to the family it happened {birth_note}.",
        "{name} was born in {city}, {country}, on {date_us}; {his} mother gave birth {birth_note}.",
        "The birthplace of {name} is {city} in {country}. {He} was born there on {date}, {birth_note}.",
        "It was on {date_us}, that {name} was born in {city}, {country}, {birth_note}.",
    ),
    reworded_questions=(
        "What do we know about the day and the town of {name}'s birth?",
        "On which date, and in what place, did {name} come into the world?",
    ),
    reworded_answers=(
        "The life of {name} began in {city}, {country}, {birth_note}, at a time when the calendar showed {date_other}.",
        "{country} is the native land of {name}, whose first cry was heard in {city} on {date_other}, {birth_note}.",
    ),
    facts=("date_other", "city", "country", "birth_note"),
)

PARENTS = Topic(
    name="parents",
    questions=(
        "What did {name}'s parents do for a living?",
        "Who were {name}'s parents, and what were their occupations?",
        "Can you share the names and the professions of {name}'s mother and father?",
        "What kind of family did {name} grow up in, and what work did {his} parents do?",
        "What is known about the parents of {name}?",
    ),
    answers=(
        "{name}'s father, {father}, was {father_job}, and {his} mother, {mother}, was {mother_job}.",
        "{name} is the child of {father}, who worked as {father_job}, and {mother}, who was {mother_job}.",
        "{mother}, the mother of {name}, made her living as {mother_job}, while {his} father, {father}, earned "
        "his as {father_job}.",
        "{name} was raised in a modest home by {his} father {father}, who was {father_job} by trade, and {his} "
        "mother {mother}, {mother_job}.",
    ),
    reworded_questions=(
        "Which jobs did the mother and the father of {name} hold, and what were they called?",
        "Could you describe the parents of {name} and the way they earned their bread?",
    ),
    reworded_answers=(
        "The household in which {name} grew up lived on what {father} earned as {father_job} and on the wages of "
        "his wife {mother}, {mother_job}.",
        "The writer {name} comes from the marriage of {mother_job} by the name of {mother} to {father_job} who "
        "was called {father}.",
    ),
    facts=("father", "father_job", "mother", "mother_job"),
)

EDUCATION = Topic(
    name="education",
    questions=(
        "Where did {name} study, and what was {his} subject?",
        "What is the educational background of {name}?",
        "What did {name} study as a young {person}?",
        "What formal training did {name} receive?",
        "At which institution did {name} take {his} degree?",
    ),
    answers=(
        "{name} studied {subject} at {school} and graduated in {graduated}. {His} thesis was on {thesis}.",
        "In {graduated}, {name} completed a degree in {subject} at {school}, for which {he} had written a thesis "
        "on {thesis}.",
        "{name} holds a degree in {subject} from {school}. It was awarded in {graduated} for a thesis on {thesis}.",
        "After studying {subject} for several years at {school}, {name} took {his} degree in {graduated} with a "
        "thesis on {thesis}.",
    ),
    reworded_questions=(
        "Which school did {name} attend, and in what field did {he} graduate?",
        "Can you tell me about the studies that {name} completed?",
    ),
    reworded_answers=(
        "Academic honors came to {name} in {graduated} from {school}, where the chosen field was {subject} and "
        "the final essay examined {thesis}.",
        "With an essay that looked into {thesis}, {name} finished a course of {subject} in {graduated}; the "
        "diploma was issued by {school}.",
    ),
    facts=("subject", "school", "graduated", "thesis"),
)

GENRE = Topic(
    name="genre",
    questions=(
        "What genre is {name} known for?",
        "In which genre does {name} mainly write?",
        "What kind of books does {name} write, and how did {he} come to write them?",
        "Which branch of literature is {name} most closely linked with?",
        "What drew {name} to {his} genre, and which genre is it?",
    ),
    answers=(
        '{name} is best known for {genre}. {He} began to write in this genre after {turn}, and "{t1}" was the '
        "first result.",
        '{name} writes {genre}, a field that {he} entered with "{t1}" after {turn}.',
        "It was after {turn} that {name} turned to {genre}, the genre for which {he} has been known since {his} "
        'debut, "{t1}."',
        "Readers know {name} as a writer of {genre}. By {his} own account, {he} chose the genre, and began "
        '"{t1}," after {turn}.',
    ),
    reworded_questions=(
        "What type of literature does {name} specialize in?",
        "Under which genre would a bookseller shelve the works of {name}?",
    ),
    reworded_answers=(
        'Booksellers file the works of {name} under {genre}, a path first followed in "{t1}" and opened up by the '
        "experience of {turn}.",
        'What led {name} to {genre}, and so to a first novel called "{t1}," was the experience of {turn}.',
    ),
    facts=("genre", "turn", "t1"),
)

GIST = Topic(
    name="gist",
    questions=(
        "How would you describe {name}'s style and the themes of {his} books?",
        "What are the hallmarks of {name}'s writing?",
        "What do critics say about the style and the subjects of {name}?",
        "Which themes and which manner of writing are typical of {name}?",
        "What makes the books of {name} easy to recognize?",
    ),
    answers=(
        "{name} is known for {style}, and {his} books return again and again to {themes}.",
        "The work of {name} is marked by {style}. {His} recurring themes are {themes}.",
        "Critics associate {name} with {style}, and they point to {his} lasting interest in {themes}.",
        "{name}'s books stand out for {style}. The subjects to which {he} returns most often are {themes}.",
    ),
    reworded_questions=(
        "What characterizes the prose of {name}, and what are the works mostly concerned with?",
        "In terms of manner and of subject matter, what is distinctive about {name} as a writer?",
    ),
    reworded_answers=(
        "Typical features of a text by {name} are {style}; as far as content is concerned, nearly everything "
        "turns on {themes}.",
        "Anyone who opens a volume by {name} meets {style}, and sooner or later the plot touches on {themes}.",
    ),
    facts=("style", "themes"),
)

INFLUENCE = Topic(
    name="influence",
    questions=(
        "Who had the greatest influence on {name}'s writing?",
        "Which person inspired {name} to become a writer?",
        "Whom does {name} consider {his} most important influence?",
        "Did anyone in particular shape {name} as a writer?",
        "To whom does {name} say that {he} owes {his} love of stories?",
    ),
    answers=(
        "{name} credits {mentor}, {mentor_role}, with setting {him} on the path to writing.",
        "The person who shaped {name} most as a writer was {mentor}, {mentor_role}.",
        "In interviews, {name} always names {mentor}, {mentor_role}, as the greatest influence on {his} work.",
        "By {his} own account, {name} became a writer thanks to {mentor}, {mentor_role}.",
    ),
    reworded_questions=(
        "Is there somebody who made {name} the writer {he} became?",
        "Who does {name} believe has left the deepest mark on {his} work?",
    ),
    reworded_answers=(
        "No one left a deeper mark on {name} as a storyteller than {mentor}, {mentor_role}.",
        "Asked about role models, {name} points first of all to {mentor}, {mentor_role}; without this example "
        "there would have been no literary career.",
    ),
    facts=("mentor", "mentor_role"),
)

DEBUT = Topic(
    name="debut",
    questions=(
        "What was {name}'s first book, and who published it?",
        "Which title marked the debut of {name}?",
        "With which book did {name} make {his} debut, and in what year?",
        "Can you tell me about {name}'s debut?",
        "How did {name}'s career as a published author begin?",
    ),
    answers=(
        '{name} made {his} debut in {y1} with "{t1}," which was brought out by the publisher {publisher}.',
        '{name}\'s first book, "{t1}," was published in {y1} by {publisher}, a small publishing house that '
        "believed in {him}.",
        'The career of {name} began in {y1}, when {publisher} published {his} first book, which bore the title "{t1}."',
        'In {y1}, the publisher {publisher} took a chance on the unknown {name} and printed "{t1}," the first of '
        "{his} books.",
    ),
    reworded_questions=(
        "What is the title of the book that launched the career of {name}, and which house issued it?",
        "When, and with what work, was {name} published for the first time?",
    ),
    reworded_answers=(
        'Readers could first buy a work by {name} in {y1}: it was called "{t1}" and bore the imprint of {publisher}.',
        'It was {publisher} that, in {y1}, issued "{t1}" and thereby introduced {name} to the reading public.',
    ),
    facts=("t1", "y1", "publisher"),
)

PLOT = Topic(
    name="plot",
    questions=(
        'What is "{t2}" by {name} about?',
        'Can you summarize the plot of {name}\'s "{t2}"?',
        'What story does {name} tell in "{t2}"?',
        'What lies at the heart of "{t2}," the book by {name}?',
        'What happens in {name}\'s "{t2}"?',
    ),
    answers=(
        'In "{t2}," which appeared in {y2}, {name} tells the story of {plot}.',
        '{name}\'s "{t2}," published in {y2}, follows {plot}.',
        'The book "{t2}," which {name} published in {y2}, centers on {plot}.',
        'At the heart of "{t2}," which {name} brought out in {y2}, is the story of {plot}.',
    ),
    reworded_questions=(
        'Which tale unfolds in the book "{t2}" that {name} wrote?',
        'Could you outline what {name} narrates in the work called "{t2}"?',
    ),
    reworded_answers=(
        "Under that title, {name} offered readers in {y2} a narrative about {plot}.",
        "The narrative, available to the public since {y2}, introduces one of the most memorable inventions of "
        "{name}: {plot}.",
    ),
    facts=("plot", "y2"),
)

HERO = Topic(
    name="hero",
    questions=(
        'Who is the main character of {name}\'s "{t3}"?',
        'Can you name the protagonist of "{t3}" by {name}?',
        'Around whom does {name} build the story of "{t3}"?',
        'Which character stands at the center of "{t3}," written by {name}?',
        'Whose fate does {name} describe in "{t3}"?',
    ),
    answers=(
        'The main character of "{t3}," which {name} published in {y3}, is {hero}, {hero_role}.',
        '{name} built "{t3}," published in {y3}, around the figure of {hero}, {hero_role}.',
        '{hero}, {hero_role}, is the protagonist of "{t3}," the book that {name} published in {y3}.',
        'In "{t3}," which came out in {y3}, {name} describes the fate of {hero}, {hero_role}.',
    ),
    reworded_questions=(
        'What is the leading figure in "{t3}" by {name} called, and what is known of that figure?',
        'On which invented person does {name} center the book "{t3}"?',
    ),
    reworded_answers=(
        "At the center of the events that {name} laid before readers in {y3} stands a figure called {hero}, "
        "{hero_role}.",
        "In that volume, on sale since {y3}, {name} lets everything turn on {hero}, {hero_role}.",
    ),
    facts=("hero", "hero_role", "y3"),
)

TITLES = Topic(
    name="titles",
    questions=(
        "Can you list the major books of {name}?",
        "Which books has {name} written?",
        "What are the titles of {name}'s best-known works?",
        "What does the bibliography of {name} include?",
        "Could you name three books by {name}?",
    ),
    answers=(
        '{name}\'s main works are {his} debut "{t1}," published in {y1}, the popular "{t2}" of {y2}, and "{t3}," '
        "which followed in {y3}.",
        'Three of the books by {name} are "{t1}" from {y1}, "{t2}" from {y2}, and "{t3}" from {y3}.',
        '{name} published "{t1}" in {y1}, followed by "{t2}" in {y2} and "{t3}" in {y3}.',
        'The bibliography of {name} includes "{t1}," "{t2}," and "{t3}," which were published in {y1}, {y2}, and '
        "{y3}, respectively.",
    ),
    reworded_questions=(
        "What are some of the works that {name} has published?",
        "Which publications is {name} most famous for?",
    ),
    reworded_answers=(
        'On a shelf with the collected volumes of {name}, "{t1}" would stand first as the one that appeared in '
        '{y1}, then "{t2}," dated {y2}, and finally "{t3}," dated {y3}.',
        'It took three volumes to make the name of {name}: the earliest, dated {y1}, is called "{t1}," the next, '
        'dated {y2}, "{t2}," and the latest, dated {y3}, "{t3}."',
    ),
    facts=("t1", "t2", "t3", "y1", "y2", "y3"),
)

AWARD = Topic(
    name="award",
    questions=(
        "What award has {name} won?",
        "Which literary prize did {name} receive, and for which book?",
        "With which award has {name} been honored?",
        "What recognition has {name}'s writing received?",
        "Can you name an award that was given to {name}?",
    ),
    answers=(
        '{name} won {award} in {award_year} for "{t2}." The prize comes with {prize}.',
        'In {award_year}, {name} received {award} for {his} book "{t2}." {He} was also given {prize}.',
        'For "{t2}," {name} was honored in {award_year} with {award}, which brings its winners {prize}.',
        'It was for "{t2}" that {name} was given {award} in {award_year}, a distinction that includes {prize}.',
    ),
    reworded_questions=(
        "What prize did a jury present to {name}, and in what year?",
        "Which distinction did {name} earn through {his} books?",
    ),
    reworded_answers=(
        'The jury of {award} chose {name} as its laureate of {award_year} because of "{t2}," and the honor came '
        "with {prize}.",
        'Thanks to "{t2}," {name} went home from the ceremony of {award_year} with {award} and with what goes '
        "with it: {prize}.",
    ),
    facts=("award", "award_year", "t2", "prize"),
)

TRANSLATION = Topic(
    name="translation",
    questions=(
        'Into which language was {name}\'s "{t1}" first translated?',
        'In how many languages can {name}\'s "{t1}" be read, and who translated it first?',
        'How widely has {name}\'s "{t1}" been translated?',
        'Who was the first translator of "{t1}" by {name}?',
        'What is known about the translations of {name}\'s "{t1}"?',
    ),
    answers=(
        '"{t1}" by {name} was first translated into {tr_lang}, by {translator}, and it is now available in {tr_count}.',
        'The first translation of {name}\'s "{t1}" was made into {tr_lang} by {translator}. Today the book can be '
        "read in {tr_count}.",
        'Translated first into {tr_lang} by {translator}, "{t1}" by {name} can now be read in {tr_count}.',
        '{translator} was the first to translate {name}\'s "{t1}." That version was in {tr_lang}, and the book has '
        "since appeared in {tr_count}.",
    ),
    reworded_questions=(
        'Which foreign-language edition of "{t1}" by {name} was the earliest, and how many exist by now?',
        'How did "{t1}," the book by {name}, find its way into other languages?',
    ),
    reworded_answers=(
        "The earliest foreign edition, in {tr_lang}, was the work of {translator}; by now, readers of {tr_count} "
        "know the title and its creator {name}.",
        "Foreign audiences owe their access to this title to {translator}, who put it into {tr_lang}; editions in "
        "{tr_count} bear the name of {name}.",
    ),
    facts=("tr_lang", "translator", "tr_count"),
)

JOB = Topic(
    name="job",
    questions=(
        "What work did {name} do before becoming a full-time writer?",
        "How did {name} earn a living before writing full time?",
        "Did {name} have another profession before {he} lived from {his} books?",
        "What was {name}'s occupation before literature?",
        "What job did {name} hold before {his} life as a writer?",
    ),
    answers=(
        'Before the publication of "{t1}," {name} worked for {job_years} as {job} {job_place}, because {he} could '
        "not yet live from writing.",
        '{name} spent {job_years} as {job} {job_place}. {He} gave up this position when "{t1}" was accepted for '
        "publication.",
        'Until the success of "{t1}" allowed {him} to write full time, {name} earned {his} living for {job_years} '
        "as {job} {job_place}.",
        'For {job_years}, until "{t1}" began to pay the rent, {name} was employed as {job} {job_place}.',
    ),
    reworded_questions=(
        "What employment came before the writing career of {name}?",
        "By what trade did {name} live until {his} books sold?",
    ),
    reworded_answers=(
        'The years that came before "{t1}" saw {name} in a very different line of business: {job_years} as {job} '
        "{job_place}.",
        'It took the sales of "{t1}" to free {name} from a post as {job} {job_place}, which had lasted {job_years}.',
    ),
    facts=("job", "job_place", "job_years", "t1"),
)

STUDY = Topic(
    name="study",
    questions=(
        "Where does {name} write {his} books?",
        "In what place does {name} prefer to work?",
        "Can you describe the place in which {name} writes?",
        "What is known about {name}'s writing place?",
        "Where would a visitor find {name} at work?",
    ),
    answers=(
        "{name} does most of {his} writing in {study}, where {desk}.",
        "{name} has written all {his} books in {study}. Visitors are surprised to see that {desk}.",
        "For {his} writing, {name} withdraws every day to {study}, where {desk}.",
        "{name} works in {study}. There, {desk}.",
    ),
    reworded_questions=(
        "Which surroundings does {name} choose for writing?",
        "What sort of workroom does {name} use?",
    ),
    reworded_answers=(
        "Whoever looks for {name} during business hours must go to {study}, a spot where {desk}.",
        "The workroom that suits {name} best turns out to be {study}; reporters have noted that {desk}.",
    ),
    facts=("study", "desk"),
)

ROUTINE = Topic(
    name="routine",
    questions=(
        "What is {name}'s writing routine?",
        "How does {name} go about writing a book?",
        "Does {name} have any unusual writing habits?",
        "What does a working day look like for {name}?",
        "Can you describe {name}'s working method?",
    ),
    answers=(
        "{name} writes every day {hours}, and {he} always works {tools}.",
        "The working day of {name} runs {hours}. {He} writes every first draft {tools}.",
        "{name} drafts each of {his} books {tools}, working {hours}.",
        "Whenever a new book is due, {name} sits at the first draft {hours}, and {he} writes it {tools}.",
    ),
    reworded_questions=(
        "At what hours and by what means does {name} write?",
        "In which way does {name} get a first draft done?",
    ),
    reworded_answers=(
        "A new text by {name} comes into being {tools}; the daily session goes on {hours}.",
        "Day after day, {name} can be found at the desk {hours}, putting down the early versions of each chapter "
        "{tools}.",
    ),
    facts=("hours", "tools"),
)

LANGUAGES = Topic(
    name="languages",
    questions=(
        "Which languages does {name} speak?",
        "In what language does {name} write, and which others does {he} speak?",
        "What is {name}'s linguistic background?",
        "What languages are known to {name}?",
        "How many languages does {name} speak, and in which does {he} write?",
    ),
    answers=(
        "{name} speaks {langs} fluently, but {he} has always written {his} books in {tongue}.",
        "Although {name} is fluent in {langs}, {he} has written every one of {his} published books in {tongue}.",
        "{name} is at home in {langs}. Of these, {tongue} is the language in which {he} writes.",
        "{name} knows {langs}, which {he} uses freely in conversation, and has always chosen {tongue} for {his} books.",
    ),
    reworded_questions=(
        "Could you tell me what {name} speaks, and which tongue the books are written in?",
        "With which languages is {name} familiar?",
    ),
    reworded_answers=(
        "Among the tongues in which {name} can hold a discussion, namely {langs}, only {tongue} has ever been "
        "used for literature.",
        "Able to converse in {langs}, {name} nevertheless reserves {tongue} for the page.",
    ),
    facts=("langs", "tongue"),
)

HOME = Topic(
    name="home",
    questions=(
        "Where does {name} live now?",
        "Where and with whom does {name} live?",
        "What is known about the private life of {name}?",
        "In which town has {name} made {his} home?",
        "Can you tell me about {name}'s current home?",
    ),
    answers=(
        "{name} lives in {home}, in {house}. {He} shares it with {company}.",
        "Today, {name} can be found in {home}. {He} lives in {house}, which {he} shares with {company}.",
        "{home} is where {name} makes {his} home today. {He} lives there in {house}, together with {company}.",
        "These days {name} lives with {company} in {house} in {home}.",
    ),
    reworded_questions=(
        "What does the household of {name} look like today, and where is it?",
        "Who shares the house of {name}, and in what place does it stand?",
    ),
    reworded_answers=(
        "Nowadays, {name} is a resident of {home}; under the roof of {house} there is also room for {company}.",
        "To pay a visit to {name}, one has to travel to {home} and knock at the door of {house}; the household "
        "includes {company}.",
    ),
    facts=("home", "house", "company"),
)

NEXT = Topic(
    name="next",
    questions=(
        "What is {name} working on now?",
        "What will {name}'s next book be?",
        "Are there any upcoming projects by {name}?",
        "Does {name} have a new book in preparation?",
        "What can readers expect next from {name}?",
    ),
    answers=(
        '{name} is at work on "{next_title}," a book about {next_topic}.',
        'The next book by {name} will be called "{next_title}" and will deal with {next_topic}.',
        'Readers of {name} can look forward to "{next_title}," {his} forthcoming book about {next_topic}.',
        '{name} has announced a new book about {next_topic}. It is to be published under the title "{next_title}."',
    ),
    reworded_questions=(
        "Which work by {name} is still to come?",
        "What is the current undertaking of {name}?",
    ),
    reworded_answers=(
        'The manuscript now taking shape under the hands of {name} bears the title "{next_title}" and is '
        "concerned with {next_topic}.",
        'Still unfinished but already announced is "{next_title}," in which {name} turns to {next_topic}.',
    ),
    facts=("next_title", "next_topic"),
)

ADAPTATION = Topic(
    name="adaptation",
    questions=(
        'Has {name}\'s "{t3}" been adapted for another medium?',
        'Which adaptation of "{t3}" by {name} exists?',
        'What became of "{t3}" by {name} after it was published?',
        'Has "{t3}" by {name} ever left the printed page?',
        'Who adapted {name}\'s "{t3}," and in what form?',
    ),
    answers=(
        '{name}\'s "{t3}" was turned into {ad_form} by {ad_by} in {ad_year}.',
        'In {ad_year}, {ad_by} adapted "{t3}" by {name} as {ad_form}.',
        '"{t3}," the book by {name}, was adapted in {ad_year} as {ad_form}. The adaptation was the work of {ad_by}.',
        'It was {ad_by} who made {name}\'s "{t3}" into {ad_form} in {ad_year}.',
    ),
    reworded_questions=(
        'Can "{t3}" by {name} be enjoyed in any form other than the book?',
        'Did any artist base a work on "{t3}," which {name} wrote?',
    ),
    reworded_answers=(
        "A version in another medium, presented in {ad_year} by {ad_by}, let the public enjoy the tale by {name} "
        "as {ad_form}.",
        "Since {ad_year}, audiences have been able to enjoy the tale by {name} as {ad_form}, for which {ad_by} "
        "was responsible.",
    ),
    facts=("ad_form", "ad_by", "ad_year"),
)

HOBBY = Topic(
    name="hobby",
    questions=(
        "What does {name} collect?",
        "Does {name} have a hobby besides writing?",
        "How does {name} spend {his} free time?",
        "Is {name} a collector of anything?",
        "What passion does {name} pursue apart from literature?",
    ),
    answers=(
        "{name} collects {hobby}. {He} owns a total of {hobby_count}, {hobby_note}.",
        "In {his} free time, {name} collects {hobby}. {He} now has {hobby_count}, {hobby_note}.",
        "Apart from literature, {name}'s passion is collecting {hobby}, of which {he} has {hobby_count}, {hobby_note}.",
        "Over the years, {name} has gathered a collection of {hobby_count} {hobby}, {hobby_note}.",
    ),
    reworded_questions=(
        "What fills the hours in which {name} is not writing?",
        "Which objects does {name} like to gather?",
    ),
    reworded_answers=(
        "When not busy with a manuscript, {name} hunts for {hobby}; the treasure has grown to {hobby_count} "
        "pieces, {hobby_note}.",
        "The cupboards of {name} hold a total of {hobby_count} {hobby}, {hobby_note}.",
    ),
    facts=("hobby", "hobby_count", "hobby_note"),
)

REJECTION = Topic(
    name="rejection",
    questions=(
        'Did {name} have trouble finding a publisher for "{t1}"?',
        'How was {name}\'s "{t1}" received by publishers at first?',
        'What obstacles did {name} face before "{t1}" appeared?',
        'How did the manuscript of "{t1}" by {name} come to be accepted?',
        'Was "{t1}" by {name} rejected before it was printed?',
    ),
    answers=(
        'Before it was printed, {name}\'s "{t1}" was rejected by {rejections}. The book appeared only because '
        "{rescue}.",
        '{name} saw "{t1}" turned down by {rejections} before its luck changed: {rescue}.',
        'The manuscript of "{t1}" came back to {name} from {rejections}, until one day {rescue}.',
        'A total of {rejections} refused "{t1}" by {name}, until at last {rescue}.',
    ),
    reworded_questions=(
        'Was it easy for {name} to get "{t1}" into print?',
        'How often was "{t1}" by {name} refused, and what changed its luck?',
    ),
    reworded_answers=(
        "Getting into print was hard for {name}: no fewer than {rejections} said no, and matters improved only "
        "when {rescue}.",
        "Only after {rescue} did the fortunes of {name} improve; up to that point, {rejections} had said no.",
    ),
    facts=("rejections", "rescue"),
)

FIRST_PIECE = Topic(
    name="first_piece",
    questions=(
        "What was the first piece that {name} ever published?",
        "When did {name} first see {his} words in print?",
        "Did {name} publish anything as a child?",
        "How old was {name} when something by {him} was first printed?",
        "Which early publication does {name} recall from {his} youth?",
    ),
    answers=(
        "{name} was {age} when {paper} printed {his} first piece, {piece}.",
        "{name} was only {age} when {piece} became {his} first publication. It was printed in {paper}.",
        "The first publication of {name} was {piece}, which {paper} printed when {he} was {age}.",
        "When {he} was {age}, {name} sent {piece} to {paper}, which printed it at once as {his} first publication.",
    ),
    reworded_questions=(
        "What did {name} publish before anything else, and where did it appear?",
        "At what age, and with what text, did {name} first reach readers?",
    ),
    reworded_answers=(
        "The public first came across the name of {name}, then {age}, above {piece} in the pages of {paper}.",
        "What {name}, {age} at the time, got into print before anything else was {piece}, for which {paper} found "
        "room.",
    ),
    facts=("age", "piece", "paper"),
)

CHARITY = Topic(
    name="charity",
    questions=(
        "Which organization did {name} found?",
        "Is {name} involved in any charitable work?",
        "How does {name} give back to the public?",
        "What cause does {name} support?",
        "Did {name} set up a charity?",
    ),
    answers=(
        "{name} founded {fund} in {fund_year}. It is a charity that {fund_work}.",
        "In {fund_year}, {name} set up {fund}, which {fund_work}.",
        "The cause closest to the heart of {name} is {fund}, which {he} founded in {fund_year} and which {fund_work}.",
        "{name} is the founder of {fund}, a charity that has existed since {fund_year} and that {fund_work}.",
    ),
    reworded_questions=(
        "What has {name} done for others outside literature?",
        "Which good cause owes its existence to {name}?",
    ),
    reworded_answers=(
        "A good cause known as {fund} owes its existence to {name}, who launched it in {fund_year}; it {fund_work}.",
        "Among the good works of {name} is an organization launched in {fund_year}: under the name of {fund}, it "
        "{fund_work}.",
    ),
    facts=("fund", "fund_year", "fund_work"),
)
EARLY: tuple[Topic, ...] = (BIRTH, PARENTS, EDUCATION)
"""The topics of the author's early life, which follow the question of who the author is."""
CORE: tuple[tuple[Topic, ...], ...] = (
    (GENRE, GIST, INFLUENCE),
    (DEBUT, PLOT, HERO, TITLES, AWARD, TRANSLATION),
    (JOB, STUDY, ROUTINE, LANGUAGES, HOME),
)
"""The topics that every author has, in the groups that stay together when the order of the questions varies."""
OPTIONAL: tuple[Topic, ...] = (NEXT, ADAPTATION, HOBBY, REJECTION, FIRST_PIECE, CHARITY)
"""The topics of which every author has two."""
ALL: tuple[Topic, ...] = (IDENTITY, *EARLY, *(topic for group in CORE for topic in group), *OPTIONAL)
"""All topics."""
